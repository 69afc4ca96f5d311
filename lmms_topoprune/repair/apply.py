"""Carrying a plan out: delete its layers and, where it says so, repair what is left, without training."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add
from typing import Any

from torch import nn

from lmms_topoprune import registry
from lmms_topoprune._util import files
from lmms_topoprune._util.progress import progress_bar
from lmms_topoprune.calibrating import load
from lmms_topoprune.calibration.decoder import Decoder
from lmms_topoprune.calibration.prompts import Prompter
from lmms_topoprune.calibration.ranks import Ranks
from lmms_topoprune.calibration.samples import Sample, fingerprint
from lmms_topoprune.calibration.sources import Reader, load_samples
from lmms_topoprune.errors import InputError, OptionError, SurgeryError, unknown
from lmms_topoprune.options import NO_REPAIR, PruningOptions
from lmms_topoprune.plan import PruningPlan, format_layers
from lmms_topoprune.repair.moments import CutRecorder, Moments
from lmms_topoprune.repair.passes import BatchPasses, Finder, Outcome, Passes, SamplePasses
from lmms_topoprune.repair.projection import last_projection, multiplied, outer_projections
from lmms_topoprune.repair.weights import (
    NewWeights,
    attach,
    blocks,
    divided,
    doubled_input,
    linear_map,
    magnitude,
    mapped,
    missed,
)
from lmms_topoprune.surgery import Deletion, decoder_layers, delete_layers, identity_layers
from lmms_topoprune.surgery.notes import CUTS

log = logging.getLogger(__name__)

RIDGE = 1e-2
"""Weight of the pull towards no repair, relative to the mean square of what the projection adds."""
VERSION = 2
"""Raised when the same samples would give other weights."""
_SAME = 0.01


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
    if method not in (allowed := (NO_REPAIR, *registry.repair_names())):
        raise unknown("repair", method, allowed)
    if not ridge >= 0:
        raise OptionError(f"ridge is {ridge}; allowed: 0 or more")
    passes: Passes = (
        BatchPasses(model, batches)
        if processor is None
        else SamplePasses(model, processor, batches, batch_size)
    )
    facts = {"method": method, "version": VERSION, "ridge": ridge}
    return _Repair(model, passes, frozenset(layers), method, ridge, facts=facts).carry_out()


def carry_out(
    model: Any,
    processor: Any,
    plan: PruningPlan,
    *,
    samples: Sequence[Sample] | None = None,
    readers: Mapping[str, Reader] | None = None,
    batch_size: int = 8,
    progress: bool = False,
    ranks: Ranks | None = None,
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
        ranks: share the passes among these processes, each of which gets the same weights.

    Raises:
        InputError: the calibration samples are not those of the plan.
        SurgeryError: the layers cannot be deleted, or this model not be repaired; nothing was changed.
    """
    facts, ranks = plan.repair, ranks or Ranks()
    if not facts:
        return delete_layers(model, plan.dropped)
    if facts["version"] != VERSION:
        raise InputError(
            f"the plan's repair is of version {facts['version']}, this release makes version {VERSION}; "
            "make a new plan"
        )
    if samples is None:
        samples = load_samples(facts["source"], facts["samples"], facts["seed"], readers=readers)
    if (found := _fingerprint(processor, samples)) != facts["fingerprint"]:
        raise InputError(
            f"the plan's repair was fitted to calibration samples with fingerprint {facts['fingerprint']}, "
            f"but {facts['source']!r} now gives {found}; make a new plan"
        )
    share = ranks.share(samples)
    with progress_bar("repairing", len(share), progress and ranks.rank == 0) as advance:
        passes = SamplePasses(model, processor, share, batch_size, advance)
        dropped = frozenset(plan.dropped)
        return _Repair(model, passes, dropped, facts["method"], facts["ridge"], ranks, facts).carry_out()


def planned(
    plan: PruningPlan,
    processor: Any,
    options: PruningOptions,
    samples: Sequence[Sample] | None = None,
    readers: Mapping[str, Reader] | None = None,
) -> PruningPlan:
    """The plan with the repair that the options ask for, and everything that decides it.

    Raises:
        OptionError: the plan comes from a file and says another repair.
    """
    method = options.repair
    if method == "none" or not plan.dropped:
        return plan
    if plan.repair:
        if plan.repair["method"] == method:
            return plan
        raise OptionError(
            f"repair is {method!r}, but the plan says {plan.repair['method']!r}; "
            "leave repair out or make a new plan"
        )
    if samples is None:
        samples = load(options, readers)
    facts = {
        "method": method,
        "version": VERSION,
        "ridge": RIDGE if method == "linear" else 0.0,
        "source": options.calibration,
        "samples": len(samples),
        "seed": options.seed,
        "fingerprint": _fingerprint(processor, samples),
    }
    return replace(plan, repair=facts)


def _fingerprint(processor: Any, samples: Sequence[Sample]) -> str:
    prompter = Prompter(processor)
    prompts = [prompter.prompt(sample) for sample in samples]
    return files.digest([fingerprint(samples), prompts, prompter.media_settings])


@dataclass
class _Repair:
    """One deletion with repair, from the sums of one pass through the dense model."""

    model: Any
    passes: Passes
    dropped: frozenset[int]
    method: str
    ridge: float
    ranks: Ranks = field(default_factory=Ranks)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def carry_out(self) -> Deletion:
        if self.method == "none" or not self.dropped:
            return delete_layers(self.model, self.dropped)
        with delete_layers(self.model, self.dropped):
            pass  # a refusal costs no pass
        self.decoder = Decoder.of(self.model, decoder_layers(self.model))
        self.cuts = blocks(self.dropped)
        try:
            weights, figures = self._linear() if self.method == "linear" else self._rescale()
        except SurgeryError as error:
            name = type(self.model).__name__
            raise SurgeryError(f"repair is {self.method!r}, but this {name} allows none: {error}") from None
        log.info("repair %s: %s", self.method, figures)
        deletion = delete_layers(self.model, self.dropped)
        attach(deletion, weights, {**self.facts, CUTS: figures})
        return deletion

    def _linear(self) -> tuple[NewWeights, dict[str, float]]:
        """Map what the projection before each cut adds; the share of each block that is still missed."""
        if self.cuts[0].start == 0:
            raise SurgeryError("layer 0 is deleted, and no layer before it could take it up; keep layer 0")
        finder = Finder(self.decoder, frozenset(cut.start - 1 for cut in self.cuts), last_projection)
        self.passes.run(finder, peek=True)
        projections = {cut: finder.found[cut.start - 1] for cut in self.cuts}
        weights: NewWeights = {}
        left = {}
        for cut, sums in self._sums(CutRecorder(self.decoder, self.cuts, projections)).items():
            assert sums.gram is not None and sums.cross is not None
            found = linear_map(sums.gram, sums.cross, self.ridge)
            weights[projections[cut].module] = mapped(projections[cut].module, found)
            left[format_layers(cut)] = round(missed(sums.gram, sums.cross, float(sums.change), found), 4)
        return weights, left

    def _rescale(self) -> tuple[NewWeights, dict[str, float]]:
        """Shorten what the layers behind a cut add, as the states before it are too short; the factors."""
        behind = frozenset(range(self.cuts[0].stop, len(self.decoder.layers))) - self.dropped
        if not behind:
            return {}, {}  # only the final norm follows, which does not see the length
        finder = Finder(self.decoder, behind, outer_projections)
        self.passes.run(finder, peek=True)
        self._check_norms(min(behind), [module for found in finder.found.values() for module in found])
        sums = self._sums(CutRecorder(self.decoder, self.cuts))
        factors = {cut: magnitude(sums[cut].before, sums[cut].after) for cut in self.cuts}
        weights: NewWeights = {}
        for layer in sorted(behind):
            factor = math.prod(value for cut, value in factors.items() if cut.stop <= layer)
            weights.update({module: divided(module, factor) for module in finder.found[layer]})
        return weights, {format_layers(cut): round(value, 6) for cut, value in factors.items()}

    def _check_norms(self, first: int, projections: list[nn.Linear]) -> None:
        """Hidden states twice as long, to which twice as much is added, have to give the same logits."""
        logits = []
        for factor in (1.0, 2.0):
            outcome = Outcome(self.model)
            with ExitStack() as stack:
                stack.enter_context(identity_layers(self.model, self.dropped))
                if factor != 1:
                    stack.enter_context(doubled_input(self.decoder.layers[first]))
                    stack.enter_context(multiplied(projections, factor))
                self.passes.run(outcome, peek=True)
            assert outcome.value is not None
            logits.append(outcome.value)
        plain, scaled = logits
        if not (scaled - plain).norm() <= _SAME * (plain - plain.mean()).norm():
            raise SurgeryError(
                f"from layer {first} on its logits depend on the length of the hidden states, "
                "or a layer adds to them through something else than the linear maps of its parts"
            )

    def _sums(self, recorder: CutRecorder) -> dict[range, Moments]:
        """The sums of one pass over all samples of all processes, on the CPU."""

        def work() -> list[Moments]:
            self.passes.run(recorder)
            return [recorder.totals[cut].on_cpu() for cut in self.cuts if cut in recorder.totals]

        shares = [share for share in self.ranks.together(work) if share]  # none: fewer samples than processes
        return {cut: reduce(add, (share[i] for share in shares)) for i, cut in enumerate(self.cuts)}
