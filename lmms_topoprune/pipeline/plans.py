"""From scores to a plan."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from lmms_topoprune import registry
from lmms_topoprune._util.timing import measured
from lmms_topoprune.calibration.states import DecoderLayers
from lmms_topoprune.criteria.scoring import score_parameters
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.pipeline.checks import check_budget
from lmms_topoprune.pipeline.scorer import Scored
from lmms_topoprune.plan import PruningPlan, format_layers
from lmms_topoprune.selection import LayerScores, PairScores, layer_values, select
from lmms_topoprune.surgery import refusals

Refused = Callable[[Iterable[int]], str | None]
"""Why layers cannot be deleted together."""
PACKAGES = (
    "lmms-topoprune",
    "lmms-eval",
    "torch",
    "torchvision",
    "transformers",
    "accelerate",
    "numpy",
    "scipy",
    "gudhi",
    "numba",
)


def plan_from(
    model: Any,
    options: PruningOptions,
    name: str,
    found: Scored,
    layers: DecoderLayers,
    fingerprint: str,
    refused: Refused | None = None,
) -> PruningPlan:
    """Select by scores that are there already.

    Args:
        model: the dense model; one without weights will do.
        options: as `resolved` returns them.
        name: recorded in the plan.
        found: the scores.
        layers: the model's decoder layers; those that write massive activations are named in the plan, and
            stay besides if the options say so.
        fingerprint: the model's.
        refused: the model's `refusals`, where many plans are made of it.
    """
    stages = dict(found.stages)
    massive = frozenset(found.massive)
    protected = massive if options.protect_massive else frozenset()
    if options.selection != "threshold":
        check_budget(options, layers.count, layers.undeletable, protected)
    kept = DecoderLayers(layers.count, layers.undeletable | protected)
    with measured(stages, "select"):
        dropped = choose_possible(refused or refusals(model), found.scores, options, kept)
    return PruningPlan(
        model=name,
        fingerprint=fingerprint,
        layers=layers.count,
        dropped=dropped,
        criterion=options.criterion,
        parameters=parameters(options) | ({"massive": format_layers(massive)} if massive else {}),
        calibration=found.calibration,
        scores=tuple(layer_values(found.scores).tolist()),
        versions=versions(),
        stages=stages,
    )


def unscored_plan(options: PruningOptions, name: str, layers: int, fingerprint: str) -> PruningPlan:
    """The plan that drops nothing, for which nothing has to be computed."""
    return PruningPlan(
        name, fingerprint, layers, (), options.criterion, parameters(options), versions=versions()
    )


def choose_possible(
    refused: Refused, scores: LayerScores | PairScores, options: PruningOptions, layers: DecoderLayers
) -> tuple[int, ...]:
    """Layers that can go together: of those that cannot, the least redundant one that is in the way stays."""
    values, forbidden = layer_values(scores), layers.undeletable
    while refused(dropped := choose(scores, options, layers.count, forbidden)):
        order = sorted(dropped, key=lambda layer: values[layer])
        in_the_way = (layer for layer in order if not refused({*dropped} - {layer}))
        forbidden |= {next(in_the_way, order[0])}
    return dropped


def choose(
    scores: LayerScores | PairScores, options: PruningOptions, layers: int, forbidden: frozenset[int]
) -> tuple[int, ...]:
    """The layers to drop, ascending; `options` as `resolved` returns them."""
    return select(
        scores,
        options.drop_count(layers),
        rule=options.selection,
        eps=options.eps,
        protect_first=options.protect_first,
        protect_last=options.protect_last,
        forbidden=forbidden,
    )


def parameters(options: PruningOptions) -> dict[str, Any]:
    """Every option that has a say in the choice, and the version of the criterion's code."""
    criterion = registry.get(options.criterion)
    names = ["sparsity", "selection", "protect_first", "protect_last"]
    if options.selection == "threshold":
        names.append("eps")
    if criterion.state != "none":
        names.append("state")
    if options.protect_massive:
        names.append("protect_massive")
    if options.trials:
        names.append("trials")
    return {**score_parameters(options), **{n: getattr(options, n) for n in names}}


def versions() -> dict[str, str]:
    """Python and the packages that have a say in a result, as they are here."""
    return dict(_versions())


@cache
def _versions() -> dict[str, str]:
    """Looked up once: it reads a file for each package."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
