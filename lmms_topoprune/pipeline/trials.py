"""Propose and settle: the loss without each proposed set of layers decides, on a fixed share of the samples.

Rounds of a few proposals, and of swaps of single layers of the best set so far, those first that the pair
scores find most promising. What few trials try, more of them try first.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice
from typing import Any, TypeVar

from lmms_topoprune._util.disk_cache import Cache
from lmms_topoprune.calibration.calibration_set import CalibrationSet, CalibrationSets
from lmms_topoprune.calibration.collect import halved
from lmms_topoprune.calibration.loss import MAX_TEXTS, LossOracle, Predictions
from lmms_topoprune.calibration.ranks import Ranks
from lmms_topoprune.errors import InputError, SurgeryError
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.pipeline.apply import apply_plan
from lmms_topoprune.pipeline.cache_schema import LOSSES, SettledTrials
from lmms_topoprune.pipeline.proposals import SWAP, Layers, Proposal, swap_order
from lmms_topoprune.plan import PruningPlan, format_layers, parse_layers
from lmms_topoprune.repair.cut_sums import KnownSums
from lmms_topoprune.repair.repaired_deletion import announce
from lmms_topoprune.selection import Floats
from lmms_topoprune.surgery import refusal

log = logging.getLogger(__name__)

VERSION = 2
"""Raised when the same scores and losses would settle on other layers."""
PROPOSED = 4
"""Proposals before each round of swaps: a few good ones and their neighbors find more than all proposals do
(research/2026-11-29-tokens.md)."""
ROUND = 8
"""Swaps before the best set is looked for again."""
MUCH = 1.0  # nats: of a tolerance, more than anybody means
BROKEN = 1e4  # nats: the loss of a model without numbers, or of a repair that is not possible
Advance = Callable[[float], None]
Result = TypeVar("Result")


def settle(
    plan: PruningPlan,
    proposals: Sequence[Proposal],
    pairs: Floats,
    candidates: Sequence[int],
    losses: Losses,
    trials: int,
    advance: Advance = lambda count: None,
) -> PruningPlan:
    """The plan with the layers that the loss misses least among those that are tried.

    Args:
        plan: what the rule alone decides, and which repair a trial is of.
        proposals: distinct sets of as many layers, the rule's own first.
        pairs: (S, S) similarity of states, which orders the swaps.
        candidates: layers that may go.
        losses: measures.
        trials: how many sets are measured at most, at least 1.
        advance: told how many are measured.
    """
    tried: list[Proposal] = []

    def attempt(batch: Iterable[Proposal], most: int) -> bool:
        taken = list(islice(batch, min(most, trials - len(tried))))
        losses.measure([one.dropped for one in taken], advance)
        tried.extend(taken)
        return bool(taken)

    def loss(one: Proposal) -> float:
        return losses.known[one.dropped].mean

    def seen() -> set[Layers]:
        return {one.dropped for one in tried}

    waiting = (one for one in proposals if one.dropped not in seen())
    while True:
        proposed = attempt(waiting, PROPOSED)
        best = min(tried, key=loss)
        swapped = attempt(_swaps(losses.model, best, pairs, candidates, seen()), ROUND)
        if not (proposed or swapped):
            break
    best = min(tried, key=loss)
    return replace(plan, dropped=best.dropped, trials=tuple(_record(one, losses) for one in tried))


def largest(
    options: PruningOptions,
    count: int,
    most: int,
    settled: Callable[[PruningOptions], tuple[PruningPlan, int]],
    dense_loss: Callable[[PruningPlan], float],
) -> tuple[PruningPlan | None, Mapping[str, Any]]:
    """The plan that drops as many layers as the tolerance allows; the number is found by halving.

    A number is too large if the best of its trials is; without trials the rule's own set is measured.

    Args:
        options: with the tolerance.
        count: decoder layers of the model.
        most: layers that may go.
        settled: makes the plan under options, and says how many more layers it found that have to stay.
        dense_loss: the dense model's loss on what the trials of a plan are measured on.

    Returns:
        The plan, None if not even one layer may go; and the tolerance with the rise at every number tried.
    """
    rises, best, low, high = dict[str, float](), None, 0, most
    kind, allowed = options.allowed_rise
    if kind == "loss" and allowed >= MUCH:
        log.warning(
            "tolerance is %s, in nats a token: the perplexity may grow %.3g times; a share of the answers "
            "is written with a percent sign, such as 5%%",
            options.tolerance,
            math.exp(min(allowed, 700)),
        )
    while low < high:
        middle = (low + high + 1) // 2 if best else 1
        plan, held = settled(replace(options, sparsity=middle / count, trials=max(1, options.trials)))
        if best is None:
            high -= held
        rises[str(middle)] = rise = round(_rise(plan, options, dense_loss), 6)
        if rise > allowed:
            high = middle - 1
        else:
            low, best = middle, plan
    if best and not options.trials:  # the one set that was measured is no trial
        asked = {name: value for name, value in best.parameters.items() if name != "trials"}
        best = replace(best, parameters=asked)
    return best, {"tolerance": options.tolerance, "rises": rises}


def _rise(plan: PruningPlan, options: PruningOptions, dense_loss: Callable[[PruningPlan], float]) -> float:
    """How much worse the trial that decided is than the dense model, in what the tolerance speaks of."""
    found = plan.winner
    if found is None:
        raise ValueError("the plan has no trials; allowed: plans that were settled")
    if options.allowed_rise[0] == "answers":
        return 1 - float(found["kept"])
    return float(found["loss"]) - dense_loss(plan)


def known_trials(plan: PruningPlan, cache: Cache) -> PruningPlan | None:
    """What an earlier run settled on, beginning with that plan; None where nobody has."""
    return cache.get(_settled_key(plan), partial(_as_settled, plan))


def _as_settled(plan: PruningPlan, value: Any) -> PruningPlan:
    entry = SettledTrials.model_validate(value)
    paid = {f"{stage} (cached)": cost for stage, cost in entry.stages.items()}
    found = replace(plan, dropped=tuple(entry.dropped), trials=tuple(value["trials"]))
    if len(found.dropped) != len(plan.dropped):
        raise InputError(f"{len(found.dropped)} layers were settled on instead of {len(plan.dropped)}")
    return found.with_stages(**paid)


def keep_trials(plan: PruningPlan, settled: PruningPlan, cache: Cache) -> None:
    """Keep what was settled on, beginning with a plan."""
    about = {"kind": "settled plan", "model": plan.model, "criterion": plan.criterion}
    cost = {"trials": settled.stages["trials"]}
    entry = {"dropped": list(settled.dropped), "trials": [*map(dict, settled.trials)], "stages": cost}
    cache.put(_settled_key(plan), entry, about)


def _settled_key(plan: PruningPlan) -> list[Any]:
    return ["settled", VERSION, MAX_TEXTS, plan.hash]


def _swaps(
    model: Any, best: Proposal, pairs: Floats, candidates: Sequence[int], tried: set[Layers]
) -> Iterator[Proposal]:
    for stays, goes in swap_order(pairs, best.dropped, candidates):
        dropped = tuple(sorted({*best.dropped} - {stays} | {goes}))
        if dropped not in tried and not refusal(model, dropped):
            yield Proposal(dropped, SWAP, f"{goes} for {stays}")


def _record(one: Proposal, losses: Losses) -> Mapping[str, Any]:
    """A trial as a plan keeps it."""
    found = losses.known[one.dropped]
    said = {"how": one.how, "also": list(one.also)}
    facts = {"loss": found.mean, "kept": round(found.kept / found.answers, 6)}
    return {"by": one.by, "dropped": list(one.dropped), **facts, **{k: v for k, v in said.items() if v}}


@dataclass
class Losses:
    """What was measured of sets of layers of one model, looked up and kept between runs.

    Attributes:
        model, processor: the dense model.
        plan: says which repair a trial is of, if any.
        calibration: of which the first MAX_TEXTS samples are tried.
        batch_size: samples in a batch.
        calibrations, sums: for repairs.
        cache, ranks: as in Planner.
        known: what was measured, by the layers that are missing.
    """

    model: Any
    processor: Any
    plan: PruningPlan
    calibration: CalibrationSet
    batch_size: int
    calibrations: CalibrationSets
    sums: KnownSums
    cache: Cache
    ranks: Ranks

    def __post_init__(self) -> None:
        samples = self.calibration.prompt_fingerprint(self.processor)
        self.key = ["trials", self.plan.fingerprint, samples, MAX_TEXTS, dict(self.plan.repair)]
        self.known = self.ranks.first(lambda: self.cache.get(self.key, _measured) or {})

    @property
    def dense(self) -> Predictions:
        """Of the model as it is."""
        if () not in self.known:
            parts = self.ranks.together(lambda: self._fitting(lambda: self.oracle.predictions()))
            self._keep({(): _total(part for rank in parts for part in rank)})
        return self.known[()]

    def measure(self, sets: Sequence[Layers], advance: Advance) -> None:
        """Add these sets, none of them empty, to what is known; `advance` is told how many are done."""
        missing = [one for one in dict.fromkeys(sets) if one not in self.known]
        advance(len(sets) - len(missing))
        if not missing:
            return
        measured_now = self._repaired(missing, advance) if self.plan.repair else self._plain(missing, advance)
        self._keep(dict(zip(missing, measured_now, strict=True)))

    def _keep(self, found: Mapping[Layers, Predictions]) -> None:
        self.known |= found
        if self.ranks.rank == 0:
            about = {"kind": "trials", "model": self.plan.model, "criterion": self.plan.criterion}
            entry = {format_layers(one): list(vars(each).values()) for one, each in self.known.items()}
            self.cache.put(self.key, entry, about)

    def _plain(self, sets: Sequence[Layers], advance: Advance) -> list[Predictions]:
        def told(count: int) -> None:
            advance(count / len(self.oracle.texts))
            self.ranks.check()

        work = partial(self._fitting, lambda: self.oracle.predictions_without(sets, told))
        parts = self.ranks.together(work)
        return [_total(text for rank in parts for text in rank[number]) for number in range(len(sets))]

    def _repaired(self, sets: Sequence[Layers], advance: Advance) -> list[Predictions]:
        announce(((dropped, self.plan.repair) for dropped in sets), self.sums)
        self.ranks.each(lambda: self._fitting(lambda: self.oracle.whole))  # of the dense model
        found = []
        for dropped in sets:
            found.append(self._of_repaired(dropped))
            advance(1)
        return found

    def _of_repaired(self, dropped: Layers) -> Predictions:
        wanted = replace(self.plan, dropped=dropped, trials=())
        try:
            deletion = apply_plan(
                self.model, self.processor, wanted, calibrations=self.calibrations, ranks=self.ranks,
                batch_size=self.batch_size, sums=self.sums,
            )  # fmt: skip
        except SurgeryError as error:
            log.info("no trial of %s: %s", format_layers(dropped), error)
            return Predictions(BROKEN, 1, 0, 1)
        with deletion:
            parts = self.ranks.together(self.oracle.predictions)
        return _total(part for rank in parts for part in rank)

    def _fitting(self, work: Callable[[], Result]) -> Result:
        """What it gives; one process halves its batches where memory runs out, as calibration does."""
        while True:
            try:
                return work()
            except (RuntimeError, MemoryError) as error:
                if self.ranks.world > 1:  # whose shares are batches of one size
                    raise
                self.batch_size = halved(error, self.batch_size, "a calibration sample of a trial")
                self.__dict__.pop("oracle", None)

    @cached_property
    def oracle(self) -> LossOracle:
        """On this process's share of the samples."""
        share = slice(self.ranks.rank, None, self.ranks.world)
        prompter = self.calibration.prompter(self.processor)
        answers = self.calibration.answers(self.model, self.processor)
        return LossOracle.of(self.model, prompter, self.calibration.samples, self.batch_size, share, answers)


def _measured(value: Any) -> dict[Layers, Predictions]:
    return {_layers(text): Predictions(*found) for text, found in LOSSES.validate_python(value).items()}


def _layers(text: str) -> Layers:
    """The inverse of format_layers."""
    return () if text == format_layers(()) else parse_layers(text)


def _total(parts: Iterable[Predictions]) -> Predictions:
    total = Predictions.total(parts)
    return total if math.isfinite(total.mean) else replace(total, loss=BROKEN * total.tokens)
