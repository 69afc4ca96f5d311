"""The plan of a model that is not loaded yet, where everything that decides it is known already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmms_topoprune import registry
from lmms_topoprune._util.cache import Cache
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.plan import PruningPlan
from lmms_topoprune.planning import (
    Scored,
    check_budget,
    explicit_plan,
    kept_scores,
    load_plan,
    plan_from,
    resolved,
    score_key,
    unsampled,
)
from lmms_topoprune.surgery import decoder_layers, undeletable
from lmms_topoprune.surgery.checkpoint import Checkpoint


def known_plan(
    checkpoint: Checkpoint,
    options: PruningOptions,
    *,
    name: str,
    calibration: Mapping[str, Any] | None,
    fingerprint: str | None,
    cache: Cache,
) -> PruningPlan | None:
    """What make_plan would return for the loaded model, or None if it takes the loaded model to tell.

    Args:
        checkpoint: the model on the disk.
        options: what to do.
        name: name or path of the model; recorded in the plan.
        calibration: what make_plan says about the calibration set; None if that is not known.
        fingerprint: the model's, if it is known; else samples of the files are read where it is needed.
        cache: where scores are looked up.

    Raises:
        TopopruneError: make_plan would raise it too.
    """
    if options.repair != "none":
        return None  # the repair is fitted to what the dropped layers do
    if options.layers is not None or options.plan is not None:
        return _explicit(checkpoint, options, name, fingerprint or checkpoint.fingerprint)
    options = resolved(options)
    dense = checkpoint.skeleton
    layers, needs_samples = len(decoder_layers(dense)), registry.get(options.criterion).needs_samples
    nothing_goes = options.selection != "threshold" and options.drop_count(layers) == 0
    if nothing_goes or (needs_samples and calibration is None):
        return None
    fingerprint = fingerprint or checkpoint.fingerprint
    if fingerprint is None:
        return None
    check_budget(options, layers, forbidden := frozenset(undeletable(dense)))
    found: Scored | None = unsampled(dense, options, forbidden) if not needs_samples else None
    if needs_samples and calibration is not None:
        found = kept_scores(cache, score_key(fingerprint, calibration, options))
    return None if found is None else plan_from(dense, options, name, found, forbidden, fingerprint)


def _explicit(
    checkpoint: Checkpoint, options: PruningOptions, name: str, fingerprint: str | None
) -> PruningPlan | None:
    dense = checkpoint.skeleton
    if options.plan is not None:
        plan = load_plan(options.plan, len(decoder_layers(dense)), name)
        if plan.repair or plan.fingerprint != fingerprint:
            return None  # the loaded model has the last word on whether it is another one
    if fingerprint is None:
        return None
    return explicit_plan(dense, options, name=name, fingerprint=fingerprint)
