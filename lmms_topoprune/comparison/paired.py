"""One cell of a leaderboard: a run on some tasks beside the dense run and the reference, with its noise.

A question has one rule, which report and regress read here. That nothing is lost is shown by the interval,
that something is lost by the test: neither follows from the lack of the other, as with few documents, where
both stay silent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lmms_topoprune.comparison import statistics
from lmms_topoprune.comparison.statistics import NONE, ROUNDING, Draws, Floats, Interval
from lmms_topoprune.results.scores import UnitScores

Groups = Sequence[tuple[str, Sequence[int]]]
"""(label, places of its runs) of every row."""
Three = tuple[int, int, int]
"""Places of (row, dense row, reference row)."""


@dataclass(frozen=True)
class Cell:
    """One run, or the mean of its calibration seeds, on one task or on all of them with equal weight.

    Attributes:
        score, chance: in 0..1, or on the task's own scale.
        retention: score / dense score.
        corrected: (score - chance) / (dense score - chance); nan where dense does not beat chance.
        difference: score minus the reference's score.
        p, p_holm: paired test against the reference, and Holm's correction over the runs; nan where there
            are no documents.
    """

    score: float
    chance: float
    retention: float
    corrected: float
    difference: float
    score_interval: Interval
    retention_interval: Interval
    corrected_interval: Interval
    difference_interval: Interval
    p: float
    p_holm: float = float("nan")


@dataclass(frozen=True)
class Table:
    """One task: the unit scores of every row, drawn again and again.

    Attributes:
        scores: of one run, for units, weights and names that all share.
        rows: (G, U) unit scores, the mean over seeds.
        members: scores of each row's seeds.
        draws: bootstrap scores; None for a task without units.
        clusters: (U,) number of each unit's cluster.
    """

    scores: UnitScores
    rows: Floats
    members: Sequence[Sequence[float]]
    draws: Draws | None
    clusters: Any

    @classmethod
    def of(cls, runs: Sequence[UnitScores], groups: Groups, rounds: int, seed: int) -> Table:
        one = runs[0]
        members = [[runs[i].score for i in places] for _, places in groups]
        if not one.units:
            return cls(one, np.empty((len(groups), 0)), members, None, None)
        rows = np.stack([np.mean([runs[i].scores for i in places], axis=0) for _, places in groups])
        bounded = not one.own_scale
        draws = Draws.of(rows, one.weights, rounds, seed, one.strata, one.clusters, bounded)
        own = statistics.codes(one.clusters, len(one.units)) if one.clusters else ()
        return cls(one, rows, members, draws, own)

    @property
    def has_interval(self) -> bool:
        if self.draws is None:
            return False
        if not self.scores.own_scale:
            return True
        return self.draws.clusters >= statistics.FEWEST and bool(np.ptp(self.rows, axis=1).max() > 0)


def cell_of(parts: Sequence[tuple[Table, float]], three: Three, seed: int) -> Cell:
    """The mean of some tasks, with their shares of it, for (row, dense row, reference row)."""
    if not parts:
        nan = float("nan")
        return Cell(nan, nan, nan, nan, nan, NONE, NONE, NONE, NONE, nan)
    run, dense, against = (
        np.asarray(sum(share * float(np.mean(table.members[i])) for table, share in parts)) for i in three
    )
    chance = float(sum(share * table.scores.chance for table, share in parts))
    found = Cell(
        score=float(run),
        chance=chance,
        retention=float(statistics.retention(run, dense)),
        corrected=float(statistics.corrected_retention(run, dense, chance)),
        difference=0.0 if three[0] == three[2] else float(run - against),
        score_interval=NONE,
        retention_interval=NONE,
        corrected_interval=NONE,
        difference_interval=Interval(0.0, 0.0) if three[0] == three[2] else NONE,
        p=1.0 if three[0] == three[2] else float("nan"),
    )
    return _with_intervals(found, parts, three, seed) if all(t.has_interval for t, _ in parts) else found


def _with_intervals(cell: Cell, parts: Sequence[tuple[Table, float]], three: Three, seed: int) -> Cell:
    row, dense, against = three
    rounds = len(parts[0][0].draws.mass) if parts[0][0].draws else 0
    seeds = np.sum([share * np.asarray(t.members[row]) for t, share in parts], axis=0).tolist()
    noise = statistics.seed_noise(seeds, rounds, seed)
    ours, base = _pair(parts, row, dense)
    own, other = (ours, base) if against == dense else _pair(parts, row, against)
    ours, own = ours + noise, own + noise
    if not any(table.scores.own_scale for table, _ in parts):
        ours = np.clip(ours, 0.0, 1.0)
    kept = Interval(1.0, 1.0) if row == dense else _retention_interval(ours, base)
    cell = replace(
        cell,
        score_interval=_to_the_bounds(statistics.percentile_interval(ours), parts, row),
        retention_interval=kept,
        corrected_interval=NONE if row == dense else _corrected_interval(ours, base, cell.chance),
    )
    if row == against:
        return cell
    interval = statistics.percentile_interval(own - other)
    return replace(cell, difference_interval=interval, p=_p(parts, row, against, seed, seeds))


def _pair(parts: Sequence[tuple[Table, float]], one: int, other: int) -> tuple[Floats, Floats]:
    pairs = [(t.draws.pair(one, other), share) for t, share in parts if t.draws is not None]
    first = sum((share * pair[0] for pair, share in pairs), np.zeros(1))
    return first, sum((share * pair[1] for pair, share in pairs), np.zeros(1))


def _to_the_bounds(found: Interval, parts: Sequence[tuple[Table, float]], row: int) -> Interval:
    """Jeffreys' interval ends at a bound that every document has reached."""
    if any(table.scores.own_scale for table, _ in parts):
        return found
    low = 0.0 if all(table.rows[row].max() <= statistics.ROUNDING for table, _ in parts) else found.low
    high = 1.0 if all(table.rows[row].min() >= 1 - statistics.ROUNDING for table, _ in parts) else found.high
    return Interval(low, high)


def _p(
    parts: Sequence[tuple[Table, float]], row: int, against: int, seed: int, seeds: Sequence[float]
) -> float:
    """The paired test over all documents of some tasks; with several seeds, the noise between them too."""
    moved: list[Floats] = []
    clusters: list[Any] = []
    clustered = False
    for table, share in parts:
        own = table.scores.weights * statistics.changes(table.rows[row], table.rows[against])
        moved.append(share * own)
        names = table.clusters if len(table.clusters) else np.arange(len(own))
        clusters.append(names + sum(int(c.max()) + 1 for c in clusters))
        clustered = clustered or len(table.clusters) > 0
    noise = statistics.seed_noise(seeds, statistics.FLIPS, seed) if np.ptp(seeds) > 0 else None
    grouped = np.concatenate(clusters) if clustered else ()
    return statistics.sign_flip_p(np.concatenate(moved), seed, grouped, noise)


def _retention_interval(drawn: Floats, dense: Floats) -> Interval:
    return statistics.percentile_interval(statistics.retention(drawn, dense))


def _corrected_interval(drawn: Floats, dense: Floats, chance: float) -> Interval:
    """Without ends where the dense model may itself be guessing: the ratio then means nothing."""
    if (dense <= chance).mean() > 0.025:
        return NONE
    return statistics.percentile_interval(statistics.corrected_retention(drawn, dense, chance))


LEVEL = 0.05
"""Of the paired test."""


def within(kept: Interval, tolerance: float) -> bool:
    """Whether at most that share of the quality over chance is lost.

    Args:
        kept: interval of the quality kept over chance, as tables show it.
        tolerance: share that may be lost.
    """
    return kept.low >= 1 - tolerance


def worse(cell: Cell, tolerance: float) -> bool:
    """Whether a score is below the reference's by more than a tolerance and than noise, by the tables' test.

    Args:
        cell: the run.
        tolerance: how much lower the score may be; a drop of exactly that is allowed.
    """
    return cell.difference < -tolerance - ROUNDING and cell.p <= LEVEL  # no test where p is not a number
