"""Carrying a plan out: delete its layers and, where it says so, repair and heal what is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from lmms_topoprune._util.progress import progress_bar
from lmms_topoprune.calibration.calibration_set import CalibrationSet, CalibrationSets
from lmms_topoprune.calibration.ranks import Ranks
from lmms_topoprune.calibration.samples import Sample
from lmms_topoprune.calibration.sources import Reader
from lmms_topoprune.errors import InputError, OptionError
from lmms_topoprune.heal.healing import heal, healing_facts
from lmms_topoprune.heal.training import Tell
from lmms_topoprune.heal_options import HealingOptions
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.plan import PruningPlan
from lmms_topoprune.repair.cut_sums import KnownSums
from lmms_topoprune.repair.probes import SamplePasses
from lmms_topoprune.repair.repaired_deletion import repair_facts, repaired_deletion
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
    checkpoint: Path | None = None,
) -> Deletion:
    """Delete a plan's layers, and repair and heal the model as the plan says.

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
        checkpoint: a folder where a healing is kept while it runs, so that the same call goes on after
            kill -9; None for nowhere.

    Returns:
        A deletion; its restore() brings back layers and weights, bit for bit.

    Raises:
        InputError: the calibration samples are not those of the plan.
        SurgeryError: the layers cannot be deleted, or this model not be repaired or healed; nothing was
            changed.
    """
    ranks, sets = ranks or Ranks(), calibrations or CalibrationSets(readers, samples)
    shown = progress and ranks.rank == 0
    now = healing_facts(HealingOptions.of_plan(plan.heal)) if plan.heal else {}
    taught = _calibration("healing", plan.heal, now, processor, sets) if plan.heal else None
    if plan.repair:
        now = repair_facts(plan.repair["method"])
        calibration = _calibration("repair", plan.repair, now, processor, sets)
        share = ranks.share(calibration.samples)
        with progress_bar("repairing", len(share), shown) as advance:
            passes = SamplePasses(model, calibration.prompter(processor), share, batch_size, advance)
            known = sums or KnownSums()
            deletion = repaired_deletion(model, passes, plan.dropped, plan.repair, ranks, known)
    else:
        deletion = delete_layers(model, plan.dropped)
    if taught is not None:
        _heal(deletion, plan, taught, processor, ranks, shown, checkpoint)
    return deletion


def _heal(
    deletion: Deletion,
    plan: PruningPlan,
    calibration: CalibrationSet,
    processor: Any,
    ranks: Ranks,
    shown: bool,
    checkpoint: Path | None,
) -> None:
    options, seed = HealingOptions.of_plan(plan.heal), plan.heal["seed"]
    try:
        with _told(options.steps, shown) as tell:
            heal(
                deletion, processor, calibration.samples, options, seed=seed,
                facts=plan.heal, checkpoint=checkpoint, key=plan.hash, tell=tell, ranks=ranks,
                prompter=calibration.prompter(processor),
                answers=calibration.answers(deletion.model, processor),
            )  # fmt: skip
    except BaseException:
        deletion.restore()
        raise


@contextmanager
def _told(steps: int, shown: bool) -> Iterator[Tell]:
    """A bar with the loss and the answer tokens a second."""
    start, done, before = time.perf_counter(), 0, 0
    with progress_bar("healing", steps, shown) as advance:

        def tell(step: int, loss: float, tokens: int) -> None:
            nonlocal start, done, before
            seconds = time.perf_counter() - start
            advance(step - done, f"loss {loss:.3f}, {(tokens - before) / seconds:.0f} tokens/s")
            start, done, before = time.perf_counter(), step, tokens

        yield tell


def _calibration(
    what: str, facts: Mapping[str, Any], now: Mapping[str, Any], processor: Any, calibrations: CalibrationSets
) -> CalibrationSet:
    """The samples of a plan's repair or healing.

    Raises:
        InputError: they are not there, or this release would do something else.
    """
    if facts["version"] != now["version"]:
        raise InputError(
            f"the plan's {what} is of version {facts['version']}, this release makes version "
            f"{now['version']}; make a new plan"
        )
    if facts.get("code") != now.get("code"):
        raise InputError(f"the plan's {what} was made by other code than is here now; make a new plan")
    calibration = calibrations.of(facts["source"], facts["samples"], facts["seed"])
    if (found := calibration.prompt_fingerprint(processor)) != facts["fingerprint"]:
        raise InputError(
            f"the plan's {what} was fitted to calibration samples with fingerprint {facts['fingerprint']}, "
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
        OptionError: the plan comes from a file and says another repair, or is healed without one.
    """
    method = options.repair
    if plan.repair:
        if plan.repair["method"] == method:
            return plan
        raise OptionError(
            f"repair is {method!r}, but the plan says {plan.repair['method']!r}; "
            "leave repair out or make a new plan"
        )
    if plan.heal:
        raise OptionError(
            f"repair is {method!r}, but the plan is healed without one; leave repair out or make a new plan"
        )
    return replace(plan, repair=_fitted(repair_facts(method), processor, options, calibration()))


def with_healing(
    plan: PruningPlan, processor: Any, options: PruningOptions, calibration: Callable[[], CalibrationSet]
) -> PruningPlan:
    """The plan with the healing that the options ask for; as `with_repair`.

    Raises:
        OptionError: the plan comes from a file and says another healing.
    """
    asked = options.healing or HealingOptions()
    if plan.heal:
        told = HealingOptions.of_plan(plan.heal)
        if told.to_json() == asked.to_json():
            return plan
        raise OptionError(
            f"heal is {asked.text!r}, but the plan says {told.text!r}; leave it out or make a new plan"
        )
    return replace(plan, heal=_fitted(healing_facts(asked), processor, options, calibration()))


def _fitted(
    facts: Mapping[str, Any], processor: Any, options: PruningOptions, samples: CalibrationSet
) -> dict[str, Any]:
    drawn = {"source": options.calibration, "samples": len(samples), "seed": options.seed}
    return {**facts, **drawn, "fingerprint": samples.prompt_fingerprint(processor)}
