"""From a model and options to a pruning plan: calibrate, score, select."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from lmms_topoprune import files
from lmms_topoprune.calibration.collect import collect
from lmms_topoprune.calibration.evidence import Evidence
from lmms_topoprune.calibration.likelihood import Likelihood
from lmms_topoprune.calibration.prompts import Prompter
from lmms_topoprune.calibration.samples import Sample, fingerprint
from lmms_topoprune.calibration.sources import Reader, load_samples
from lmms_topoprune.criteria import registry
from lmms_topoprune.errors import InputError, OptionError
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.plan import PruningPlan, parse_layers
from lmms_topoprune.selection import LayerScores, PairScores, select
from lmms_topoprune.stages import Stages, measured
from lmms_topoprune.surgery import decoder_layers, undeletable
from lmms_topoprune.surgery import fingerprint as model_fingerprint

PACKAGES = ("lmms-topoprune", "torch", "transformers", "numpy", "scipy", "gudhi", "numba")


def make_plan(
    model: Any,
    processor: Any,
    options: PruningOptions,
    *,
    name: str,
    samples: Sequence[Sample] | None = None,
    readers: Mapping[str, Reader] | None = None,
    progress: bool = True,
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

    Raises:
        OptionError: the options contradict each other or ask for more layers than may go.
        InputError: the model, the samples or a given plan cannot be used.
    """
    if options.layers is not None or options.plan is not None:
        return explicit_plan(model, options, name=name)
    options = resolved(options)
    layers = len(decoder_layers(model))
    if options.selection != "threshold" and options.drop_count(layers) == 0:
        return _plan(model, options, name, layers, dropped=())
    check_budget(options, layers, forbidden := frozenset(undeletable(model)))
    stages: Stages = {}
    with measured(stages, "calibrate"):
        evidence = calibrate(
            model, processor, options, [options.criterion], samples=samples, readers=readers,
            progress=progress, forbidden=forbidden,
        )  # fmt: skip
    with measured(stages, "score"):
        scores = score(evidence, options)
    with measured(stages, "select"):
        dropped = choose(scores, options, layers, forbidden)
    return _plan(model, options, name, layers, dropped, scores, evidence.calibration, stages)


def resolved(options: PruningOptions) -> PruningOptions:
    """The options with "auto" replaced by what the criterion uses.

    Raises:
        OptionError: no such criterion, or a threshold together with a sparsity.
    """
    criterion = registry.get(options.criterion)
    selection = options.selection
    if selection == "auto":
        free = options.sparsity == 0 and criterion.rule_without_sparsity
        selection = criterion.rule_without_sparsity if free else criterion.rule
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


def calibrate(
    model: Any,
    processor: Any,
    options: PruningOptions,
    criteria: Iterable[str],
    *,
    samples: Sequence[Sample] | None = None,
    readers: Mapping[str, Reader] | None = None,
    progress: bool = True,
    forbidden: frozenset[int] | None = None,
) -> Evidence:
    """One pass that collects what all of these criteria read.

    With options.state = "auto" each criterion's own states are collected, else the given one.
    """
    rules = [registry.get(name) for name in criteria]
    forbidden = frozenset(undeletable(model)) if forbidden is None else forbidden
    layers = len(decoder_layers(model))
    if not any(rule.needs_samples for rule in rules):
        return Evidence(layers, forbidden=forbidden)
    if samples is None:
        samples = load_samples(options.calibration, options.samples, options.seed, readers=readers)
    wanted = {
        rule.state if options.state == "auto" else options.state for rule in rules if rule.state != "none"
    }
    states = tuple(sorted(wanted))
    sums = tuple(sorted({name for rule in rules for name in rule.sums}))
    evidence = Evidence(layers)
    if states or sums:
        evidence = collect(
            model, processor, samples, token=options.token, states=states, sums=sums,
            batch_size=options.calibration_batch, progress=progress,
        )  # fmt: skip
    return replace(
        evidence,
        calibration=describe(processor, samples, options, states),
        forbidden=forbidden,
        progress=progress,
        make_likelihood=lambda: Likelihood.of(model, processor, samples, options.calibration_batch),
    )


def describe(
    processor: Any, samples: Sequence[Sample], options: PruningOptions, states: tuple[str, ...]
) -> dict[str, Any]:
    """What a plan says about its calibration set; the fingerprint covers prompts, pixels and all of this."""
    facts = {
        "source": options.calibration,
        "samples": len(samples),
        "seed": options.seed,
        "token": options.token,
        "state": "+".join(states) or "none",
    }
    prompter = Prompter(processor)
    prompts = [prompter.prompt(sample) for sample in samples]
    return {**facts, "fingerprint": files.digest([facts, fingerprint(samples), prompts])}


def score(evidence: Evidence, options: PruningOptions) -> LayerScores | PairScores:
    """The criterion's scores; `options` as `resolved` returns them."""
    few = max(options.ks) + 1
    count = evidence.calibration.get("samples", few)
    if count < few:
        raise InputError(f"k is {options.k!r}, but there are only {count} calibration samples")
    return registry.get(options.criterion).function()(evidence, options)


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


def explicit_plan(model: Any, options: PruningOptions, *, name: str) -> PruningPlan:
    """The plan for an explicit list of layers, or the one in a file if it was made for this model.

    Raises:
        InputError: a layer does not exist, the file cannot be read, or it is another model's plan.
    """
    layers = len(decoder_layers(model))
    if options.plan is None:
        dropped = parse_layers(options.layers or "")
        parameters = {"layers": options.layers}
        return PruningPlan(
            name, model_fingerprint(model), layers, dropped, "given", parameters, versions=_versions()
        )
    plan = PruningPlan.load(options.plan)
    if plan.layers != layers:
        raise InputError(f"plan {options.plan!r} is for {plan.layers} layers, but {name!r} has {layers}")
    if plan.fingerprint != (found := model_fingerprint(model)):
        raise InputError(
            f"plan {options.plan!r} was made for {plan.model!r} with fingerprint {plan.fingerprint}, but the "
            f"weights or configuration of {name!r} have {found}; make a new plan for this model"
        )
    return plan


def _plan(
    model: Any,
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
        fingerprint=model_fingerprint(model),
        layers=layers,
        dropped=dropped,
        criterion=options.criterion,
        parameters=parameters(options),
        calibration=calibration or {},
        scores=None if scores is None else layer_values(scores),
        versions=_versions(),
        stages=stages or {},
    )


def parameters(options: PruningOptions) -> dict[str, Any]:
    """Every option that has a say in the choice, and the version of the criterion's code."""
    criterion = registry.get(options.criterion)
    names = ["sparsity", "selection", "protect_first", "protect_last", *criterion.parameters]
    if options.selection == "threshold":
        names.append("eps")
    if criterion.state != "none":
        names.append("state")
    return {"version": criterion.version, **{n: getattr(options, n) for n in names}}


def layer_values(scores: LayerScores | PairScores) -> tuple[float, ...]:
    """One number a layer: its score, or the similarity of its input and output."""
    values = scores.values if isinstance(scores, LayerScores) else np.diagonal(scores.values, 1)
    return tuple(float(v) for v in values)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
