"""From a model and options to a pruning plan: calibrate, score, select."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from lmms_topoprune import registry
from lmms_topoprune._util.cache import Cache
from lmms_topoprune._util.timing import Stages, measured
from lmms_topoprune.calibrating import calibrate, describe, load, states_read
from lmms_topoprune.calibration.evidence import Evidence
from lmms_topoprune.calibration.ranks import Ranks
from lmms_topoprune.calibration.samples import Sample
from lmms_topoprune.calibration.sources import Reader
from lmms_topoprune.criteria.scoring import score, score_parameters, scores_from_json, scores_to_json
from lmms_topoprune.errors import InputError, OptionError
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.plan import PruningPlan, parse_layers
from lmms_topoprune.repair.apply import planned
from lmms_topoprune.selection import LayerScores, PairScores, layer_values, select
from lmms_topoprune.surgery import decoder_layers, refusal, undeletable
from lmms_topoprune.surgery import fingerprint as model_fingerprint

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


def make_plan(
    model: Any,
    processor: Any,
    options: PruningOptions,
    *,
    name: str,
    samples: Sequence[Sample] | None = None,
    readers: Mapping[str, Reader] | None = None,
    progress: bool = True,
    ranks: Ranks | None = None,
    cache: Cache | None = None,
) -> PruningPlan:
    """Decide which decoder layers go. The model is not changed.

    Args:
        model: the dense model.
        processor: its processor, or the tokenizer of a text-only model.
        options: what to do.
        name: name or path the model was loaded from; recorded in the plan.
        samples: calibration samples instead of options.calibration.
        readers: further calibration sources, such as {"task": ...} for lmms-eval's tasks.
        progress: show bars.
        ranks: share the calibration among these processes, each of which calls this function and
            gets the same plan; without it this process does everything.
        cache: where scores are looked up and kept; without it in the user's cache folder.

    Raises:
        OptionError: the options contradict each other or ask for more layers than may go.
        InputError: the model, the samples or a given plan cannot be used.
    """
    if options.layers is not None or options.plan is not None:
        plan = explicit_plan(model, options, name=name)
        return planned(plan, processor, options, samples, readers)
    options = resolved(options)
    layers = len(decoder_layers(model))
    if options.selection != "threshold" and options.drop_count(layers) == 0:
        return _plan(model_fingerprint(model), options, name, layers, dropped=())
    check_budget(options, layers, forbidden := frozenset(undeletable(model)))
    if registry.get(options.criterion).needs_samples and samples is None:
        samples = load(options, readers)
    ranks, cache = ranks or Ranks(), Cache.default() if cache is None else cache
    if samples is None:  # cheaper to compute than to look up
        found = unsampled(model, options, forbidden)
    else:
        facts = describe(processor, samples, options, states_read(options, [options.criterion]))
        found = _scored(
            partial(calibrate, model, processor, options, [options.criterion], samples=samples,
                    progress=progress, forbidden=forbidden, ranks=ranks),
            score_key(model_fingerprint(model), facts, options), options, ranks, cache, name,
        )  # fmt: skip
    plan = ranks.first(lambda: plan_from(model, options, name, found, forbidden))
    return planned(plan, processor, options, samples, readers)


@dataclass(frozen=True)
class Scored:
    """Scores, the calibration set they come from, and what they cost when they were computed."""

    scores: LayerScores | PairScores
    calibration: Mapping[str, Any]
    stages: Stages


def _scored(
    calibrated: Callable[[], Evidence],
    key: list[Any],
    options: PruningOptions,
    ranks: Ranks,
    cache: Cache,
    name: str,
) -> Scored:
    """The cached scores of that key, or new ones, which are then cached."""
    if kept := ranks.first(lambda: kept_scores(cache, key)):
        return kept
    with cache.alone(key) if ranks.rank == 0 else nullcontext():
        # Another process may have been faster while this one waited.
        if kept := ranks.first(lambda: kept_scores(cache, key)):
            return kept
        stages: Stages = {}
        with measured(stages, "calibrate"):
            evidence = calibrated()
        with measured(stages, "score"):
            scores = ranks.first(lambda: score(evidence, options))
        if ranks.rank == 0:
            about = {"kind": "scores", "model": name, "criterion": options.criterion}
            cache.put(key, {"scores": scores_to_json(scores), "stages": stages}, about)
    return Scored(scores, key[1], stages)


def unsampled(model: Any, options: PruningOptions, forbidden: frozenset[int]) -> Scored:
    """Scores of a criterion that needs no samples."""
    evidence = Evidence(len(decoder_layers(model)), forbidden=forbidden)
    return Scored(score(evidence, options), {}, {})


def score_key(fingerprint: str, calibration: Mapping[str, Any], options: PruningOptions) -> list[Any]:
    """What decides scores; `options` as `resolved` returns them."""
    return [fingerprint, dict(calibration), options.criterion, score_parameters(options)]


def kept_scores(cache: Cache, key: list[Any]) -> Scored | None:
    """The cached scores of that key, marked as such."""
    kept = cache.get(key)
    if not kept:
        return None
    # What they cost when they were computed; the name says that this run did not pay it.
    paid = {f"{stage} (cached)": cost for stage, cost in kept["stages"].items()}
    return Scored(scores_from_json(kept["scores"]), key[1], paid)


def plan_from(
    model: Any,
    options: PruningOptions,
    name: str,
    found: Scored,
    forbidden: frozenset[int],
    fingerprint: str | None = None,
) -> PruningPlan:
    """Select by scores that are there already.

    Args:
        model: the dense model; one without weights will do if `fingerprint` is given.
        options: as `resolved` returns them.
        name: recorded in the plan.
        found: the scores.
        forbidden: layers that stay.
        fingerprint: the model's.
    """
    layers, stages = len(decoder_layers(model)), dict(found.stages)
    with measured(stages, "select"):
        dropped = _choose_possible(model, found.scores, options, forbidden)
    fingerprint = fingerprint or model_fingerprint(model)
    return _plan(fingerprint, options, name, layers, dropped, found.scores, found.calibration, stages)


def _choose_possible(
    model: Any, scores: LayerScores | PairScores, options: PruningOptions, forbidden: frozenset[int]
) -> tuple[int, ...]:
    """Layers that can go together: of those that cannot, the least redundant one that is in the way stays."""
    layers, values = len(decoder_layers(model)), layer_values(scores)
    while refusal(model, dropped := choose(scores, options, layers, forbidden)):
        order = sorted(dropped, key=lambda layer: values[layer])
        in_the_way = (layer for layer in order if not refusal(model, {*dropped} - {layer}))
        forbidden |= {next(in_the_way, order[0])}
    return dropped


def resolved(options: PruningOptions) -> PruningOptions:
    """The options with "auto" replaced by what the criterion uses.

    Raises:
        OptionError: no such criterion, or a threshold together with a sparsity.
    """
    criterion = registry.get(options.criterion)
    selection = options.selection
    if selection == "auto":
        free = criterion.selection_without_sparsity if options.sparsity == 0 else None
        selection = free or criterion.selection
    if selection == "threshold" and options.sparsity > 0:
        raise OptionError(
            f"selection is 'threshold' and sparsity is {options.sparsity}, but a threshold finds the number "
            "of layers by itself; pass eps instead of sparsity, or another selection"
        )
    state = criterion.state if options.state == "auto" else options.state
    return replace(options, selection=selection, state="auto" if state == "none" else state)


def check_budget(options: PruningOptions, layers: int, forbidden: frozenset[int]) -> None:
    """Refuse, before anything is computed, to drop more layers than may go."""
    inner = range(options.protect_first, layers - options.protect_last)
    free = len(set(inner) - forbidden)
    count = options.drop_count(layers)
    if count > free or free == 0:
        reasons = [f"protect_first={options.protect_first}", f"protect_last={options.protect_last}"]
        if forbidden:
            reasons.append(f"{len(forbidden)} layers that cannot be deleted")
        raise OptionError(
            f"sparsity is {options.sparsity}, which drops {count} of {layers} layers, but "
            f"{' and '.join(reasons)} leave {free} to drop; allowed: sparsity up to {free / layers:.3f}"
        )


def choose(
    scores: LayerScores | PairScores, options: PruningOptions, layers: int, forbidden: frozenset[int]
) -> tuple[int, ...]:
    """The layers to drop, ascending."""
    return select(
        scores,
        options.drop_count(layers),
        rule=options.selection,
        eps=options.eps,
        protect_first=options.protect_first,
        protect_last=options.protect_last,
        forbidden=forbidden,
    )


def explicit_plan(
    model: Any, options: PruningOptions, *, name: str, fingerprint: str | None = None
) -> PruningPlan:
    """The plan for an explicit list of layers, or the one in a file if it was made for this model.

    Args:
        model: the dense model; one without weights will do if `fingerprint` is given.
        options: with `layers` or `plan`.
        name: recorded in the plan.
        fingerprint: the model's.

    Raises:
        InputError: a layer does not exist, the file cannot be read, or it is another model's plan.
    """
    layers = len(decoder_layers(model))
    found = fingerprint or model_fingerprint(model)
    if options.plan is None:
        dropped = parse_layers(options.layers or "")
        parameters = {"layers": options.layers}
        return PruningPlan(name, found, layers, dropped, "given", parameters, versions=versions())
    plan = load_plan(options.plan, layers, name)
    if plan.fingerprint != found:
        raise InputError(
            f"plan {options.plan!r} was made for {plan.model!r} with fingerprint {plan.fingerprint}, but the "
            f"weights or configuration of {name!r} have {found}; make a new plan for this model"
        )
    return plan


def load_plan(path: str, layers: int, name: str) -> PruningPlan:
    """The plan in a file, if it is for as many layers."""
    plan = PruningPlan.load(path)
    if plan.layers != layers:
        raise InputError(f"plan {path!r} is for {plan.layers} layers, but {name!r} has {layers}")
    return plan


def _plan(
    fingerprint: str,
    options: PruningOptions,
    name: str,
    layers: int,
    dropped: tuple[int, ...],
    scores: LayerScores | PairScores | None = None,
    calibration: Mapping[str, Any] | None = None,
    stages: Stages | None = None,
) -> PruningPlan:
    return PruningPlan(
        model=name,
        fingerprint=fingerprint,
        layers=layers,
        dropped=dropped,
        criterion=options.criterion,
        parameters=parameters(options),
        calibration=calibration or {},
        scores=None if scores is None else tuple(layer_values(scores).tolist()),
        versions=versions(),
        stages=stages or {},
    )


def parameters(options: PruningOptions) -> dict[str, Any]:
    """Every option that has a say in the choice, and the version of the criterion's code."""
    criterion = registry.get(options.criterion)
    names = ["sparsity", "selection", "protect_first", "protect_last"]
    if options.selection == "threshold":
        names.append("eps")
    if criterion.state != "none":
        names.append("state")
    return {**score_parameters(options), **{n: getattr(options, n) for n in names}}


def versions() -> dict[str, str]:
    """Python and the packages that have a say in a result, as they are here."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
