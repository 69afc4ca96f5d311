"""Loading a wrapped model without the layers that its plan drops, where the plan is known before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from loguru import logger

from lmms_topoprune.calibration.ranks import Ranks
from lmms_topoprune.compat.from_pretrained import loading_through
from lmms_topoprune.errors import InputError, shown
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.pipeline import Planner
from lmms_topoprune.plan import PruningPlan
from lmms_topoprune.surgery import load_pruned
from lmms_topoprune.surgery.checkpoint import Checkpoint

# Arguments of from_pretrained that take the weights from elsewhere or spread each over several devices.
DENSE_ONLY = ("state_dict", "gguf_file", "tp_plan", "tp_size", "device_mesh", "distributed_config")
# Arguments of a wrapper that change no calibration prompt and no weight.
ELSEWHERE = ("pretrained", "device", "device_map", "batch_size", "max_batch_size")


@dataclass
class PartialLoad:
    """One model's way from its arguments into memory.

    Attributes:
        planner: knows or makes the plan.
        options: what to do.
        arguments: of the wrapped class, with the resolved path under "pretrained".
        dtype: type to load in, whatever the wrapped class says; None leaves the choice to it.
        wraps: names the wrapped class.
        plan: the plan, once the model was loaded without what it drops.
        typed: whether the model was loaded in `dtype`.
    """

    planner: Planner
    options: PruningOptions
    arguments: Mapping[str, Any]
    dtype: torch.dtype | None
    wraps: str
    plan: PruningPlan | None = None
    typed: bool = False
    _checkpoint: Checkpoint | None = None

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Inside, the wrapped class's own from_pretrained leaves out what it can."""
        path, busy = str(self.arguments["pretrained"]), False

        def load(original: Any, kind: Any, name: Any, *more: Any, **given: Any) -> Any:
            nonlocal busy
            ours = not busy and str(name) == path and not more and not any(given.get(k) for k in DENSE_ONLY)
            if not ours:
                return original(name, *more, **given)
            if self.dtype is not None:  # many wrappers load in bfloat16, some beside an argument dtype
                given = {**given, "dtype": self.dtype}
                given.pop("torch_dtype", None)
                self.typed = True
            busy = True
            try:
                return self._load(kind, path, given)
            finally:
                busy = False

        with loading_through(load):
            yield

    def _load(self, kind: Any, path: str, given: dict[str, Any]) -> Any:
        checkpoint = Checkpoint(path, kind, given)
        if not isinstance(checkpoint.config, kind.config_class):  # the text model of Qwen2.5-Omni's folder
            self._refuse_other_family(checkpoint.config, kind.config_class.model_type)
            return kind.from_pretrained(path, **given)
        self._checkpoint = checkpoint
        self.plan = self.planner.plan_before_loading(
            self.options, self._checkpoint, self._setting, Ranks.current()
        )
        if self.plan is None:
            return kind.from_pretrained(path, **given)
        logger.info(f"loading without the dropped layers: {self.plan}")
        return load_pruned(path, self.plan, model_class=kind, **given)

    def _refuse_other_family(self, config: Any, loads: str) -> None:
        """transformers only warns, and fills what does not fit with random numbers."""
        parts = [getattr(part, "model_type", None) for part in config.sub_configs.values()]
        if loads not in (config.model_type, *parts):
            raise InputError(
                f"pretrained is {shown(self.planner.name)}, a model of type {config.model_type}, but "
                f"{self.wraps} loads {loads}; pass it to the model of its own family (`topoprune models`)"
            )

    def remember(self, plan: PruningPlan) -> None:
        """Keep what the next run has to know before it loads the model, which was loaded dense."""
        if self._checkpoint is not None:
            self.planner.remember(plan, self.options, self._checkpoint, self._setting)

    @property
    def _setting(self) -> list[Any]:
        """What decides prompts and pixels beside the options and the files."""
        given = {name: str(value) for name, value in self.arguments.items() if name not in ELSEWHERE}
        return [self.wraps, given]
