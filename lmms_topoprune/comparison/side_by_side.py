"""A leaderboard over runs: scores, retention, paired intervals and tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from lmms_topoprune.comparison import statistics
from lmms_topoprune.comparison.align import align
from lmms_topoprune.comparison.comparable import check_comparable, remarks
from lmms_topoprune.comparison.statistics import Floats, Interval
from lmms_topoprune.errors import InputError, OptionError, unknown
from lmms_topoprune.results.labels import variant
from lmms_topoprune.results.reading import Run
from lmms_topoprune.results.scores import UnitScores

OVERALL = "overall"
MIN_ROUNDS = 100
"""Fewer say nothing about the outer 2.5 %."""


@dataclass(frozen=True)
class Cell:
    """One run on one task, or on all of them with equal weight.

    Attributes:
        score, chance: in 0..1.
        retention: score / dense score.
        corrected: (score - chance) / (dense score - chance); nan where dense does not beat chance.
        difference: score minus the reference's score.
        p, p_holm: paired test against the reference, and Holm's correction over the runs.
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
class Row:
    """One run in the leaderboard.

    Attributes:
        label: how tables call it.
        criterion: its variant, such as "topology selection=block".
        sparsity: share of layers that are gone.
        dropped: which, such as "3-5+9".
        cells: task -> score, retention and test.
        overall: the same for the mean of the tasks.
        cost: see `results.costs`.
        path: its results file.
        plan_hash: of its plan; None without one.
    """

    label: str
    criterion: str
    sparsity: float
    dropped: str
    cells: Mapping[str, Cell]
    overall: Cell
    cost: Mapping[str, float]
    path: str
    plan_hash: str | None = None


@dataclass(frozen=True)
class Comparison:
    """The leaderboard: dense first, then by overall score."""

    rows: tuple[Row, ...]
    tasks: Mapping[str, str]
    dense: str
    reference: str
    units: Mapping[str, int]
    rounds: int
    seed: int
    notes: tuple[str, ...] = field(default=())

    @property
    def overall(self) -> str:
        """How tables call the mean of the tasks: "overall", unless a task is called that."""
        return OVERALL if OVERALL not in self.tasks else "mean of tasks"

    def to_json(self) -> dict[str, Any]:
        return {"schema": "topoprune-comparison/1", "overall": self.overall, **_plain(asdict(self))}


def compare(
    runs: Sequence[Run],
    *,
    dense: str | None = None,
    reference: str | None = None,
    force: bool = False,
    rounds: int = statistics.ROUNDS,
    seed: int = 0,
) -> Comparison:
    """Compare runs document by document.

    Args:
        runs: what `read_runs` returned.
        dense: label of the run that retention refers to; the first run with nothing dropped by default.
        reference: label of the run the paired test refers to; the dense one by default.
        force: compare the common documents of runs that differ in more than their pruning.
        rounds: bootstrap rounds.
        seed: seed of the bootstrap and of sampled permutations.

    Raises:
        InputError: no dense run, no common task or document, or runs that are not comparable.
        OptionError: `dense` or `reference` is not the label of a run, or too few rounds for an interval.
    """
    if rounds < MIN_ROUNDS:
        raise OptionError(f"rounds is {rounds}; allowed: whole numbers from {MIN_ROUNDS}")
    base = _pick(runs, dense, "dense")
    against = base if reference is None else _pick(runs, reference, "reference")
    if not force:
        check_comparable(base, runs)
    notes = remarks(base, runs)
    tables = align([run.tasks for run in runs])
    draws = {
        task: statistics.bootstrap_scores(
            np.stack([row.scores for row in table]), table[0].weights, rounds, seed + i, table[0].strata
        )
        for i, (task, table) in enumerate(tables.items())
    }
    three = runs.index(base), runs.index(against)
    rows = [_row(run, (i, *three), tables, draws, seed) for i, run in enumerate(runs)]
    rows = _correct(rows, against.label)
    rows.sort(key=lambda row: (row.label != base.label, -row.overall.score))
    return Comparison(
        rows=tuple(rows),
        tasks={task: table[0].metric for task, table in tables.items()},
        dense=base.label,
        reference=against.label,
        units={task: len(table[0].units) for task, table in tables.items()},
        rounds=rounds,
        seed=seed,
        notes=tuple(notes),
    )


def _pick(runs: Sequence[Run], label: str | None, argument: str) -> Run:
    if label is not None:
        match = next((run for run in runs if run.label == label), None)
        if match is None:
            raise unknown(argument, label, [run.label for run in runs])
        return match
    found = next((run for run in runs if run.is_dense), None)
    if found is None:
        raise InputError(
            "no dense run among the results; evaluate dense_llava with the same arguments, or name one"
        )
    return found


def _row(
    run: Run,
    three: tuple[int, int, int],
    tables: Mapping[str, list[UnitScores]],
    draws: Mapping[str, Floats],
    seed: int,
) -> Row:
    """The row of a run, by the places of (run, dense, reference) in the tables and draws (R, rounds)."""
    cells: dict[str, Cell] = {}
    parts = []
    for task, table in tables.items():
        own, dense, against = (table[i] for i in three)
        scores = [own.score, dense.score, against.score]
        drawn = [draws[task][i] for i in three]
        moved = own.weights * (own.scores - against.scores)
        cells[task] = _cell(scores, drawn, dense.chance, moved, seed)
        parts.append((scores, drawn, dense.chance, moved / len(tables)))
    mean_scores = list(np.mean([part[0] for part in parts], axis=0))
    mean_drawn = list(np.mean([part[1] for part in parts], axis=0))
    chance = float(np.mean([part[2] for part in parts]))
    overall = _cell(mean_scores, mean_drawn, chance, np.concatenate([part[3] for part in parts]), seed)
    plan = run.plan
    return Row(
        label=run.label,
        criterion="dense" if plan is None else variant(plan),
        sparsity=0.0 if plan is None else plan.sparsity,
        dropped=run.dropped,
        cells=cells,
        overall=overall,
        cost=dict(run.cost),
        path=str(run.path),
        plan_hash=None if plan is None else plan.hash,
    )


def _cell(scores: list[float], drawn: list[Floats], chance: float, moved: Floats, seed: int) -> Cell:
    """A cell from (run, dense, reference): their scores and bootstrap scores (rounds,)."""
    run, dense, against = (np.asarray(score) for score in scores)
    return Cell(
        score=float(run),
        chance=chance,
        retention=float(statistics.retention(run, dense)),
        corrected=float(statistics.corrected_retention(run, dense, chance)),
        difference=float(run - against),
        score_interval=statistics.percentile_interval(drawn[0]),
        retention_interval=statistics.percentile_interval(statistics.retention(drawn[0], drawn[1])),
        corrected_interval=_corrected_interval(drawn[0], drawn[1], chance),
        difference_interval=statistics.percentile_interval(drawn[0] - drawn[2]),
        p=statistics.sign_flip_p(moved, seed),
    )


def _corrected_interval(drawn: Floats, dense: Floats, chance: float) -> Interval:
    """Without ends where the dense model may itself be guessing: the ratio then means nothing."""
    if (dense <= chance).mean() > 0.025:
        return Interval(float("nan"), float("nan"))
    return statistics.percentile_interval(statistics.corrected_retention(drawn, dense, chance))


def _correct(rows: list[Row], reference: str) -> list[Row]:
    """Holm over the runs: once for the overall column, once over all single tasks together."""
    tested = [row.label != reference for row in rows]
    overall = iter(statistics.holm([row.overall.p for row, t in zip(rows, tested, strict=True) if t]))
    single = [cell.p for row, t in zip(rows, tested, strict=True) if t for cell in row.cells.values()]
    tasks = iter(statistics.holm(single))
    return [
        replace(
            row,
            overall=replace(row.overall, p_holm=next(overall)),
            cells={task: replace(cell, p_holm=next(tasks)) for task, cell in row.cells.items()},
        )
        if is_tested
        else row
        for row, is_tested in zip(rows, tested, strict=True)
    ]


def _plain(value: Any) -> Any:
    """JSON has no nan: it becomes null."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
