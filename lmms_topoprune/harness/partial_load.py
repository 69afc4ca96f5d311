"""Loading a wrapped model without the layers that its plan drops, where the plan is known before."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from loguru import logger

from lmms_topoprune._util.cache import Cache
from lmms_topoprune._util.compat import loading_through
from lmms_topoprune.ahead import known_plan
from lmms_topoprune.calibration.ranks import Ranks
from lmms_topoprune.calibration.samples import Sample, fingerprint
from lmms_topoprune.harness.arguments import DENSE
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.plan import PruningPlan
from lmms_topoprune.surgery import load_pruned
from lmms_topoprune.surgery.checkpoint import Checkpoint

# Arguments of from_pretrained that take the weights from elsewhere or spread each over several devices.
DENSE_ONLY = ("state_dict", "gguf_file", "tp_plan", "tp_size", "device_mesh", "distributed_config")
# Arguments of a wrapper that change no calibration prompt and no weight.
ELSEWHERE = ("pretrained", "device", "device_map", "batch_size", "max_batch_size")

# Files of a checkpoint that make the processor: tokenizer, templates, settings, code.
SMALL = (".json", ".jinja", ".txt", ".model", ".tiktoken", ".py")

Keys = tuple[list[Any], list[Any]]
"""Of a model's weights and of its calibration set, in the cache."""


@dataclass
class Lean:
    """One model's way from its arguments into memory.

    Attributes:
        options: what to do.
        source: name or path as the user gave it.
        arguments: of the wrapped class, with the resolved path under "pretrained".
        samples: calibration samples, or None where none are needed.
        cast: type that the loaded model is converted to afterwards, or None.
        wraps: names the wrapped class.
        cache: where plans' ingredients are looked up.
        plan: the plan, once the model was loaded without what it drops.
    """

    options: PruningOptions
    source: str
    arguments: Mapping[str, Any]
    samples: Sequence[Sample] | None
    cast: torch.dtype | None
    wraps: str
    cache: Cache = field(default_factory=Cache.default)
    plan: PruningPlan | None = None
    _checkpoint: Checkpoint | None = None
    _keys: Keys | None = None

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Inside, the wrapped class's own from_pretrained leaves out what it can."""
        path, busy = str(self.arguments["pretrained"]), False

        def load(original: Any, kind: Any, name: Any, *more: Any, **given: Any) -> Any:
            nonlocal busy
            ours = not busy and str(name) == path and not more and not any(given.get(k) for k in DENSE_ONLY)
            if not ours:
                return original(name, *more, **given)
            busy = True
            try:
                return self._load(kind, path, given)
            finally:
                busy = False

        with loading_through(load):
            yield

    def _load(self, kind: Any, path: str, given: dict[str, Any]) -> Any:
        self._checkpoint = checkpoint = Checkpoint(path, kind, given, self.cast)
        self.plan = Ranks.current().first(lambda: self._foretold(checkpoint))
        if self.plan is None:
            return kind.from_pretrained(path, **given)
        logger.info(f"loading without the dropped layers: {self.plan}")
        return load_pruned(path, self.plan, model_class=kind, **given)

    def _foretold(self, checkpoint: Checkpoint) -> PruningPlan | None:
        try:
            if self.options.criterion == DENSE or checkpoint.is_quantized():
                return None
            weights, calibration = self._keys = self._keys_of(checkpoint)
            plan = known_plan(
                checkpoint,
                self.options,
                name=self.source,
                calibration=self.cache.get(calibration),
                fingerprint=self.cache.get(weights),
                cache=self.cache,
            )
        except Exception as error:  # whatever it is, loading the dense model works or says it better
            logger.info(f"the dense model is loaded first: {type(error).__name__}: {error}")
            return None
        return plan if plan is not None and plan.dropped else None

    def remember(self, plan: PruningPlan) -> None:
        """Keep what the next run has to know before it loads the model, which was loaded dense."""
        if not plan.dropped or self._keys is None or not self._unchanged():
            return
        weights, calibration = self._keys
        self.cache.put(weights, plan.fingerprint, self._about("fingerprint"))
        if plan.calibration:
            self.cache.put(calibration, dict(plan.calibration), self._about("calibration"))

    def _unchanged(self) -> bool:
        """Whether the files are still those that were loaded: calibration takes long, training may go on."""
        assert self._checkpoint is not None
        try:
            return self._keys == self._keys_of(self._checkpoint)
        except OSError:  # they are gone
            return False

    def _keys_of(self, checkpoint: Checkpoint) -> Keys:
        return _weights_key(checkpoint), self._calibration_key(checkpoint)

    def _about(self, kind: str) -> dict[str, str]:
        return {"kind": kind, "model": self.source}

    def _calibration_key(self, checkpoint: Checkpoint) -> list[Any]:
        """What decides prompts and pixels, as far as it is known before a processor is made."""
        options = self.options
        given = {name: str(value) for name, value in self.arguments.items() if name not in ELSEWHERE}
        asked = [options.criterion, options.calibration, options.samples, options.seed]
        asked += [options.token, options.state, fingerprint(self.samples or ())]
        small = {f.name: digest(f) for f in checkpoint.folder.iterdir() if f.suffix in SMALL}
        return ["calibration", self.wraps, given, asked, small, transformers.__version__]


def _weights_key(checkpoint: Checkpoint) -> list[Any]:
    return ["fingerprint", checkpoint.identity, transformers.__version__]


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]
