"""Deleting layers and repairing what is left, without training, by any method of the registry."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

from torch import nn

from lmms_topoprune import registry
from lmms_topoprune._util.references import told_as_own
from lmms_topoprune.calibration.prompts import Prompter
from lmms_topoprune.calibration.ranks import Ranks
from lmms_topoprune.errors import InputError, OptionError, SurgeryError, shown, unknown
from lmms_topoprune.options import NO_REPAIR
from lmms_topoprune.plan import runs
from lmms_topoprune.repair.cut_sums import KnownSums
from lmms_topoprune.repair.job import Job
from lmms_topoprune.repair.linear import RIDGE
from lmms_topoprune.repair.probes import BatchPasses, Passes, SamplePasses
from lmms_topoprune.repair.weights import NewWeights
from lmms_topoprune.surgery import Deletion, delete_layers
from lmms_topoprune.surgery.edits import CUTS, REPAIR

log = logging.getLogger(__name__)


def repair(
    model: Any,
    batches: Sequence[Any],
    layers: Iterable[int],
    method: str = "linear",
    *,
    processor: Any = None,
    ridge: float = RIDGE,
    batch_size: int = 8,
) -> Deletion:
    """Delete decoder layers in place and repair the layers around the cuts.

    Args:
        model: any vision-language or language model of transformers, dense.
        batches: model inputs ({"input_ids": (B, T), "attention_mask": (B, T), ...}), or calibration
            samples together with their processor; passed through the model once, after a look at the first.
        layers: layers to delete, counted from 0.
        method: "linear", "rescale" or "none".
        processor: words the samples; a tokenizer for a text-only model.
        ridge: at least 0; only for "linear".
        batch_size: samples in one forward pass.

    Returns:
        A deletion; its restore() brings back the old weights too, bit for bit.

    Raises:
        OptionError: no such method, or a negative ridge.
        SurgeryError: a layer cannot be deleted, or the model's structure does not allow this repair;
            nothing was changed.
    """
    if ":" not in method and method not in (allowed := (NO_REPAIR, *registry.repair_names())):
        raise unknown("repair", method, allowed)
    found = None if method == NO_REPAIR else registry.get_repair(method)
    if not ridge >= 0:
        raise OptionError(f"ridge is {ridge}; allowed: 0 or more")
    if found is None:
        return delete_layers(model, layers)
    passes: Passes = (
        BatchPasses(model, batches)
        if processor is None
        else SamplePasses(model, Prompter(processor), batches, batch_size)
    )
    facts = {"method": method, "version": found.version, "ridge": ridge}
    return repaired_deletion(model, passes, layers, facts, Ranks(), KnownSums())


def repair_facts(method: str) -> dict[str, Any]:
    """What a plan says about a repair by this method, apart from its calibration set."""
    found = registry.get_repair(method)
    code = {} if found.code is None else {"code": found.code}
    return {"method": method, "version": found.version, "ridge": found.ridge, **code}


def repaired_deletion(
    model: Any,
    passes: Passes,
    layers: Iterable[int],
    facts: Mapping[str, Any],
    ranks: Ranks,
    sums: KnownSums,
) -> Deletion:
    """The deletion of these layers with the repair of these facts; its sums are looked up and kept in `sums`.

    Raises:
        SurgeryError: as `repair`.
        InputError: the method returned something else than weights and figures; nothing was changed.
        OwnCodeError: it is somebody else's function and raises an exception; nothing was changed.
    """
    dropped = frozenset(layers)
    if not dropped:
        return delete_layers(model, dropped)
    with delete_layers(model, dropped):
        pass  # a refusal costs no pass
    try:
        job = Job.of(model, passes, dropped, facts, ranks, sums)
        fit = registry.get_repair(facts["method"]).fit
        with told_as_own(f"repair {facts['method']!r}", fit):
            found = fit(job)
    except SurgeryError as error:
        name = type(model).__name__
        raise SurgeryError(f"repair is {facts['method']!r}, but this {name} allows none: {error}") from None
    weights, figures = _checked(found, model, f"repair {facts['method']!r}")
    log.info("repair %s: %s", facts["method"], figures)
    deletion = delete_layers(model, dropped)
    deletion.attach(weights, REPAIR, {**facts, CUTS: figures})
    return deletion


def _checked(found: Any, model: nn.Module, what: str) -> tuple[NewWeights, dict[str, float]]:
    """What a method returned, if it is new parameters for those that the model has, and a figure a cut."""
    if not (isinstance(found, tuple) and len(found) == 2 and all(isinstance(part, dict) for part in found)):
        raise InputError(f"{what} returned a {type(found).__name__}; allowed: (new weights, a figure a cut)")
    weights, figures = found
    own = {*model.modules()}
    for module, parameters in weights.items():
        if module not in own or not isinstance(parameters, dict):
            raise InputError(
                f"{what} returned weights of {shown(module)}; allowed: module of the model -> name -> new "
                "parameter"
            )
        for name, new in parameters.items():
            old = module._parameters.get(name)
            if not isinstance(new, nn.Parameter) or old is None or _form(new) != _form(old):
                raise InputError(
                    f"{what} returned {name!r} of a {type(module).__name__}, which is no parameter of the "
                    "shape, type and device that it has there; allowed: an nn.Parameter in place of another"
                )
    for cut, figure in figures.items():
        if not isinstance(figure, Real):
            raise InputError(f"{what} returned the figure {shown(figure)} of {shown(cut)}; allowed: a number")
    return weights, {str(cut): float(figure) for cut, figure in figures.items()}


def _form(parameter: nn.Parameter) -> tuple[Any, ...]:
    return parameter.shape, parameter.dtype, parameter.device


def announce(plans: Iterable[tuple[Iterable[int], Mapping[str, Any]]], sums: KnownSums) -> None:
    """Say which layers will be deleted and with which repair, so that one pass serves as many as it can."""
    for dropped, facts in plans:
        if facts:
            kind = (facts["fingerprint"], registry.get_repair(facts["method"]).projected)
            sums.announce(kind, runs(dropped))
