"""The plan of a model that is not loaded yet, where everything that decides it is known already."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import transformers

from lmms_topoprune import registry
from lmms_topoprune._util.disk_cache import Cache
from lmms_topoprune.calibration.states import DecoderLayers
from lmms_topoprune.options import AUTO, PruningOptions
from lmms_topoprune.pipeline import checks
from lmms_topoprune.pipeline.cache_schema import FINGERPRINT, CalibrationFacts
from lmms_topoprune.pipeline.calibrate import points_read
from lmms_topoprune.pipeline.plans import plan_from, versions
from lmms_topoprune.pipeline.scorer import cached_scores, score_key, unsampled
from lmms_topoprune.pipeline.trials import known_trials
from lmms_topoprune.plan import PruningPlan
from lmms_topoprune.surgery import decoder_layers, layer_sizes, undeletable
from lmms_topoprune.surgery.checkpoint import Checkpoint

# Files of a checkpoint that make the processor: tokenizer, templates, settings, code.
PROCESSOR_FILES = (".json", ".jinja", ".txt", ".model", ".tiktoken", ".py")


@dataclass(frozen=True)
class Keys:
    """Under which the cache has what a plan is made from.

    Attributes:
        weights: of the model's fingerprint.
        calibration: of what a plan says about the calibration set.
    """

    weights: list[Any]
    calibration: list[Any]

    @classmethod
    def of(cls, options: PruningOptions, checkpoint: Checkpoint, setting: Any) -> Keys:
        """The keys, as far as they can be told before a processor is made.

        Args:
            options: what to do.
            checkpoint: the model on the disk.
            setting: a JSON value of the samples, and of whatever else decides prompts.
        """
        version = transformers.__version__
        asked = [options.criterion, options.calibration, options.samples, options.seed]
        asked += [points_read(options), options.state]
        small = {f.name: _hash(f) for f in checkpoint.folder.iterdir() if f.suffix in PROCESSOR_FILES}
        return cls(
            ["fingerprint", checkpoint.identity, version], ["calibration", setting, asked, small, version]
        )


def _hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def known_plan(
    options: PruningOptions, checkpoint: Checkpoint, keys: Keys, cache: Cache, name: str
) -> PruningPlan | None:
    """What `Planner.plan` would return for the loaded model, or None if it takes the loaded model to tell.

    Args:
        options: what to do.
        checkpoint: the model on the disk.
        keys: where the cache has what earlier runs remembered.
        cache: where scores are looked up.
        name: recorded in the plan.

    Raises:
        TopopruneError: `Planner.plan` would raise it too.
    """
    if options.repair != "none" or options.healing:
        return None  # both are fitted to what the dropped layers do
    dense = checkpoint.skeleton
    layers = DecoderLayers(len(decoder_layers(dense)), frozenset(undeletable(dense)))
    if options.plan is not None and checks.load_plan(options.plan, layers.count, name).changes_weights:
        return None
    explicit = checks.is_explicit(options)
    reads = bool(options.trials) or registry.get(options.criterion).needs_samples
    facts = None
    if not explicit and reads and (known := cache.get(keys.calibration, CalibrationFacts.model_validate)):
        facts = known.model_dump()
    if not explicit:
        if options.sparsity == AUTO:
            return None  # it is found by the loss
        sizes, total = layer_sizes(dense)
        free = [sizes[i] for i in layers.droppable(options.protect_first, options.protect_last)]
        options = checks.resolved(checks.counted(options, layers.count, free, total))
        if checks.drops_nothing(options, layers.count) or (reads and facts is None):
            return None
    fingerprint = cache.get(keys.weights, FINGERPRINT.validate_python) or checkpoint.fingerprint
    if fingerprint is None:
        return None
    if explicit:
        given: dict[str, Any] = {"name": name, "layers": layers.count, "versions": versions()}
        return checks.explicit_plan(options, fingerprint=fingerprint, **given)
    checks.check_budget(options, layers.count, layers.undeletable)
    found = None if registry.get(options.criterion).needs_samples else unsampled(layers, options)
    if found is None and facts is not None:
        found = cached_scores(cache, score_key(fingerprint, facts, options), layers.count)
    if found is None:
        return None
    plan = plan_from(dense, options, name, found, layers, fingerprint)
    if not options.trials:
        return plan
    return known_trials(replace(plan, calibration=plan.calibration or facts or {}), cache)


def remember(plan: PruningPlan, keys: Keys, cache: Cache) -> None:
    """Keep what the next run has to know before it loads the model."""
    cache.put(keys.weights, plan.fingerprint, {"kind": "fingerprint", "model": plan.model})
    if facts := {name: value for name, value in plan.calibration.items() if name != "evaluated"}:
        cache.put(keys.calibration, facts, {"kind": "calibration", "model": plan.model})
