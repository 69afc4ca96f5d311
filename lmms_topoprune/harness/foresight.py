"""Mistakes that show before a model is loaded: its configuration and the calibration set are enough."""

from __future__ import annotations

from functools import partial

from transformers import AutoConfig

from lmms_topoprune import planning, registry
from lmms_topoprune.calibrating import load
from lmms_topoprune.calibration.samples import Sample
from lmms_topoprune.criteria.scoring import check_samples
from lmms_topoprune.harness.evaluated_documents import refuse_evaluated
from lmms_topoprune.harness.task_samples import task_samples
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.plan import PruningPlan, parse_layers


def foresee(options: PruningOptions, pretrained: str) -> list[Sample] | None:
    """Refuse what cannot work, and return the calibration samples; None where none are needed.

    Raises:
        OptionError: more layers than may go, no such calibration source, or one that is evaluated.
        InputError: a layer that does not exist, a plan file or samples that cannot be used.
        UnreachableError: the calibration data cannot be reached.
    """
    layers = count_layers(pretrained)
    if options.repair != "none":
        refuse_evaluated(options.calibration, options.calibration_forced)
    if options.plan is not None:
        plan = PruningPlan.load(options.plan)
        if layers is not None:
            planning.load_plan(options.plan, layers, pretrained)
        for facts in (plan.calibration, plan.repair or {}):
            refuse_evaluated(str(facts.get("source", "")), options.calibration_forced)
        return None
    if options.layers is not None:
        if layers is not None:
            PruningPlan(pretrained, "", layers, parse_layers(options.layers), "given")
        return None
    options = planning.resolved(options)
    if options.selection != "threshold" and options.sparsity == 0:
        return None
    if layers is not None:
        planning.check_budget(options, layers, frozenset())
    if not registry.get(options.criterion).needs_samples:
        return None
    refuse_evaluated(options.calibration, options.calibration_forced)
    samples = load(options, {"task": partial(task_samples, strict=options.calibration_strict)})
    check_samples(options, len(samples))
    return samples


def count_layers(pretrained: str) -> int | None:
    """Decoder layers according to the configuration; None if it does not say it in the usual way."""
    try:
        config = AutoConfig.from_pretrained(pretrained).get_text_config(decoder=True)
    except Exception:  # a model with its own code, or one that transformers does not know: loading will say
        return None
    return getattr(config, "num_hidden_layers", None)
