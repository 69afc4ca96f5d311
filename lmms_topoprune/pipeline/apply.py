"""Carrying a plan out: delete its layers and, where it says so, repair what is left."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lmms_topoprune._util.progress import progress_bar
from lmms_topoprune.calibration.calibration_set import CalibrationSet, CalibrationSets
from lmms_topoprune.calibration.ranks import Ranks
from lmms_topoprune.calibration.samples import Sample
from lmms_topoprune.calibration.sources import Reader
from lmms_topoprune.errors import InputError, OptionError
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.plan import PruningPlan
from lmms_topoprune.repair.apply import repair_facts, repaired_deletion
from lmms_topoprune.repair.cut_sums import KnownSums
from lmms_topoprune.repair.probes import SamplePasses
from lmms_topoprune.surgery import Deletion, delete_layers


def apply_plan(
    model: Any,
    processor: Any,
    plan: PruningPlan,
    *,
    samples: Sequence[Sample] | None = None,
    readers: Mapping[str, Reader] | None = None,
    batch_size: int = 8,
    progress: bool = False,
    ranks: Ranks | None = None,
    calibrations: CalibrationSets | None = None,
    sums: KnownSums | None = None,
) -> Deletion:
    """Delete a plan's layers, and repair the model as the plan says.

    Args:
        model: the dense model that the plan was made for.
        processor: its processor or tokenizer.
        plan: what to do.
        samples: the plan's calibration samples, if they are at hand; else they are drawn again.
        readers: further calibration sources.
        batch_size: samples in one forward pass.
        progress: show a bar.
        ranks: share the pass among these processes, each of which gets the same weights.
        calibrations: draws the samples, instead of `samples` and `readers`.
        sums: what passes through this dense model found before, and where more is kept.

    Returns:
        A deletion; its restore() brings back layers and weights, bit for bit.

    Raises:
        InputError: the calibration samples are not those of the plan.
        SurgeryError: the layers cannot be deleted, or this model not be repaired; nothing was changed.
    """
    if not plan.repair:
        return delete_layers(model, plan.dropped)
    calibration = _calibration(plan, processor, calibrations or CalibrationSets(readers, samples))
    ranks, known = ranks or Ranks(), sums or KnownSums()
    share = ranks.share(calibration.samples)
    with progress_bar("repairing", len(share), progress and ranks.rank == 0) as advance:
        passes = SamplePasses(model, calibration.prompter(processor), share, batch_size, advance)
        return repaired_deletion(model, passes, plan.dropped, plan.repair, ranks, known)


def _calibration(plan: PruningPlan, processor: Any, calibrations: CalibrationSets) -> CalibrationSet:
    """The samples of a plan's repair.

    Raises:
        InputError: they are not there, or the repair is of another version.
    """
    facts = plan.repair
    now = repair_facts(facts["method"])
    if facts["version"] != now["version"] or facts.get("code") != now.get("code"):
        raise InputError(
            f"the plan's repair is of version {facts['version']}, this release makes version "
            f"{now['version']}; make a new plan"
        )
    calibration = calibrations.of(facts["source"], facts["samples"], facts["seed"])
    if (found := calibration.prompt_fingerprint(processor)) != facts["fingerprint"]:
        raise InputError(
            f"the plan's repair was fitted to calibration samples with fingerprint {facts['fingerprint']}, "
            f"but {facts['source']!r} now gives {found}; make a new plan"
        )
    return calibration


def with_repair(
    plan: PruningPlan, processor: Any, options: PruningOptions, calibration: Callable[[], CalibrationSet]
) -> PruningPlan:
    """The plan with the repair that the options ask for, and everything that decides it.

    Args:
        plan: drops some layer.
        processor: words the samples.
        options: with a repair.
        calibration: gives the samples, if they are needed.

    Raises:
        OptionError: the plan comes from a file and says another repair.
    """
    method = options.repair
    if plan.repair:
        if plan.repair["method"] == method:
            return plan
        raise OptionError(
            f"repair is {method!r}, but the plan says {plan.repair['method']!r}; "
            "leave repair out or make a new plan"
        )
    samples = calibration()
    drawn = {"source": options.calibration, "samples": len(samples), "seed": options.seed}
    facts = {**repair_facts(method), **drawn, "fingerprint": samples.prompt_fingerprint(processor)}
    return replace(plan, repair=facts)
