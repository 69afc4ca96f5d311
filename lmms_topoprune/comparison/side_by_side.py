"""A leaderboard over runs: scores, retention, paired intervals and tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from lmms_topoprune._util.escape import number
from lmms_topoprune.comparison import statistics
from lmms_topoprune.comparison.comparable import check_comparable, remarks
from lmms_topoprune.comparison.paired import Cell, Groups, Table, Three, cell_of
from lmms_topoprune.errors import InputError, OptionError, unknown
from lmms_topoprune.results.reading import Run, healing_text, seed_of, series, variant
from lmms_topoprune.results.scores import UnitScores


def align(tasks: Sequence[Mapping[str, UnitScores]]) -> dict[str, list[UnitScores]]:
    """Task -> one UnitScores a run, over the units that all runs share, in one order.

    Raises:
        InputError: no common task, or a task without common units.
    """
    common = [task for task in tasks[0] if all(task in other for other in tasks)]
    if not common:
        raise InputError("the runs have no task in common")
    return {task: _share(task, [t[task] for t in tasks]) for task in common}


def _share(task: str, rows: list[UnitScores]) -> list[UnitScores]:
    if len({row.metric for row in rows}) > 1:
        metrics = " and ".join(sorted({row.metric for row in rows}))
        raise InputError(f"the runs are scored differently in task {task!r}: by {metrics}")
    if any(row.own_scale for row in rows):
        rows = [replace(row, own_scale=True, chance=0.0) for row in rows]
    first = rows[0].units
    if all(row.units is first or row.units == first for row in rows):
        return rows
    shared = set(first).intersection(*(row.units for row in rows[1:]))
    if not shared:
        raise InputError(f"the runs have no document of task {task!r} in common")
    order = tuple(unit for unit in first if unit in shared)
    return [row.of(order) for row in rows]


__all__ = ["OVERALL", "Cell", "Comparison", "Row", "compare"]

OVERALL = "overall"
MIN_ROUNDS = 100
"""Fewer say nothing about the outer 2.5 %."""


@dataclass(frozen=True)
class Row:
    """One line of the leaderboard: a run, or the runs that differ in their calibration seed alone.

    Attributes:
        label: how tables call it.
        criterion: its variant, such as "topology selection=block".
        sparsity: share of layers that are gone.
        dropped: which, such as "3-5+9"; joined by " / " where seeds disagree.
        cells: task -> score, retention and test.
        overall: the same for the mean of the tasks.
        cost: see `results.costs`.
        path: its results file, the first one of several.
        plan_hash: of its plan; None without one.
        layers: decoder layers before deletion; 0 where no plan tells.
        runs: labels of its runs -> overall score.
        repair, heal: what was done to the weights that stayed; empty for nothing.
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
    layers: int = 0
    runs: Mapping[str, float] = field(default_factory=dict)
    repair: str = ""
    heal: str = ""


@dataclass(frozen=True)
class Comparison:
    """The leaderboard: dense first, then by overall score.

    Attributes:
        rows: one a model.
        tasks: task -> metric.
        dense, reference: labels of the rows that retention and test refer to.
        units: task -> how many units were compared.
        rounds, seed: of the bootstrap.
        notes: what a reader has to know.
        own_scale: tasks whose scores are no shares of 1.
        averaged: tasks that `overall` is the mean of.
        together: the rows with calibration seeds put together; those of `rows` unless every seed has one.
    """

    rows: tuple[Row, ...]
    tasks: Mapping[str, str]
    dense: str
    reference: str
    units: Mapping[str, int]
    rounds: int
    seed: int
    notes: tuple[str, ...] = ()
    own_scale: tuple[str, ...] = ()
    averaged: tuple[str, ...] = ()
    together: tuple[Row, ...] = ()

    @property
    def overall(self) -> str:
        """How tables call the mean of the tasks: "overall", unless a task is called that."""
        return OVERALL if OVERALL not in self.tasks else "mean of tasks"

    def to_json(self) -> dict[str, Any]:
        told = asdict(self)
        if self.together == self.rows:
            del told["together"]
        return {"schema": "topoprune-comparison/1", "overall": self.overall, **_plain(told)}


def compare(
    runs: Sequence[Run],
    *,
    dense: str | None = None,
    reference: str | None = None,
    force: bool = False,
    rounds: int = statistics.ROUNDS,
    seed: int = 0,
    every_seed: bool = False,
) -> Comparison:
    """Compare runs document by document.

    Args:
        runs: what `read_runs` returned.
        dense: label of the run that retention refers to; the first run with nothing dropped by default.
        reference: label of the run the paired test refers to; the dense one by default.
        force: compare the common documents of runs that differ in more than their pruning.
        rounds: bootstrap rounds.
        seed: seed of the bootstrap and of sampled permutations.
        every_seed: a row for every calibration seed, instead of their mean with the noise between them.

    Raises:
        InputError: no dense run, no common task or document, or runs that are not comparable.
        OptionError: `dense` or `reference` is not the label of a run, or too few rounds for an interval.
    """
    if rounds < MIN_ROUNDS:
        raise OptionError(f"rounds is {rounds}; allowed: whole numbers from {MIN_ROUNDS}")
    by_seed: Groups = _by_seed(runs)
    groups = [(run.label, [i]) for i, run in enumerate(runs)] if every_seed else list(by_seed)
    shown = len(groups)
    groups += [group for group in by_seed if group[1] not in [members for _, members in groups]]
    base = _pick(runs, groups, dense, "dense")
    against = base if reference is None else _pick(runs, groups, reference, "reference")
    first = runs[groups[base][1][0]]
    if not force:
        check_comparable(first, runs)
    tables = {name: Table.of(rows, groups, rounds, seed + i) for i, (name, rows) in enumerate(_aligned(runs))}
    shares, averaged_note = _averaged(tables)
    rows = [_row(runs, groups, (g, base, against), tables, shares, seed) for g in range(len(groups))]
    names = {label for label, _ in by_seed}
    return Comparison(
        rows=_sorted(_correct(rows[:shown], groups[against][0]), groups[base][0]),
        together=_sorted(
            _correct([row for row in rows if row.label in names], groups[against][0]), groups[base][0]
        ),
        tasks={task: table.scores.metric for task, table in tables.items()},
        dense=groups[base][0],
        reference=groups[against][0],
        units={task: len(table.scores.units) for task, table in tables.items()},
        rounds=rounds,
        seed=seed,
        notes=(*remarks(first, runs), *averaged_note, *_no_interval(tables)),
        own_scale=tuple(task for task, table in tables.items() if table.scores.own_scale),
        averaged=tuple(shares),
    )


def _sorted(rows: Sequence[Row], dense: str) -> tuple[Row, ...]:
    """Dense first, then by overall score."""
    return tuple(
        sorted(rows, key=lambda row: (row.label != dense, -np.nan_to_num(row.overall.score, nan=-1e9)))
    )


def _by_seed(runs: Sequence[Run]) -> Groups:
    """Runs that differ in nothing but their seed make one row."""
    found: dict[str, list[int]] = {}
    for i, run in enumerate(runs):
        plan = run.plan
        alone = plan is None or run.is_dense
        found.setdefault(f"run {i}" if alone or plan is None else series(plan), []).append(i)
    groups: list[tuple[str, Sequence[int]]] = []
    for members in found.values():
        if len({seed_of(runs[i].plan) for i in members}) < len(members) or len(members) == 1:
            groups += [(runs[i].label, [i]) for i in members]
        else:
            groups.append((_series_label([runs[i] for i in members]), members))
    labels = [label for label, _ in groups]
    return [
        (label if labels.count(label) == 1 else runs[members[0]].label, members) for label, members in groups
    ]


def _series_label(runs: Sequence[Run]) -> str:
    plans = [run.plan for run in runs if run.plan is not None]
    asked = [plan.parameters.get("sparsity") or plan.sparsity for plan in plans]
    return f"{variant(plans[0])} {100 * float(np.mean(asked)):.3g} % ({len(plans)} seeds)"


def _pick(runs: Sequence[Run], groups: Groups, label: str | None, argument: str) -> int:
    if label is not None:
        names = [name for name, _ in groups]
        match = next((i for i, n in enumerate(names) if label in (n, n.partition(" (")[0])), None)
        if match is None:
            raise unknown(argument, label, names)
        return match
    found = next((g for g, (_, members) in enumerate(groups) if runs[members[0]].is_dense), None)
    if found is None:
        raise InputError(
            "no dense run among the results; evaluate dense_llava with the same arguments, or name one"
        )
    return found


def _aligned(runs: Sequence[Run]) -> list[tuple[str, list[UnitScores]]]:
    left_out = {task for run in runs for task in run.unscored}
    return list(align([{t: s for t, s in run.tasks.items() if t not in left_out} for run in runs]).items())


def _averaged(tables: Mapping[str, Table]) -> tuple[dict[str, float], list[str]]:
    """Task -> its share of the overall score, and a note where some tasks have none.

    Every task weighs the same, and so do the filters of one; what is no share of 1, or has no documents,
    cannot be averaged with what has, and only counts by itself.
    """
    sound = [n for n, t in tables.items() if t.draws is not None and not t.scores.own_scale]
    if not sound:
        alike = {t.scores.metric for t in tables.values()}
        sound = list(tables) if len(alike) == 1 else []
    filters = [tables[name].scores.task or name for name in sound]
    count = len(set(filters))
    shares = {n: 1 / (count * filters.count(of)) for n, of in zip(sound, filters, strict=True)}
    rest = [name for name in tables if name not in shares]
    note = [f"Not in the mean of the tasks: {', '.join(rest)}."] if rest else []
    return shares, note


def _no_interval(tables: Mapping[str, Table]) -> list[str]:
    """Why some tasks have no interval."""
    found = []
    for name, table in tables.items():
        if table.draws is None:
            found.append(f"{name} has no interval: its documents have no score of their own.")
        elif not table.has_interval:
            found.append(f"{name} has no interval: fewer than {statistics.FEWEST} documents, or all agree.")
    return found


def _row(
    runs: Sequence[Run],
    groups: Groups,
    three: Three,
    tables: Mapping[str, Table],
    shares: Mapping[str, float],
    seed: int,
) -> Row:
    label, places = groups[three[0]]
    members = [runs[i] for i in places]
    first, plan = members[0], members[0].plan
    cells = {task: cell_of([(table, 1.0)], three, seed) for task, table in tables.items()}
    means = {run.label: _mean_score(shares, tables, three[0], i) for i, run in enumerate(members)}
    names = [set(run.cost) for run in members]
    return Row(
        label=label,
        criterion="dense" if plan is None else variant(plan),
        sparsity=float(np.mean([0.0 if r.plan is None else r.plan.sparsity for r in members])),
        dropped=" / ".join(dict.fromkeys(run.dropped for run in members)),
        cells=cells,
        overall=cell_of([(tables[task], share) for task, share in shares.items()], three, seed),
        cost={n: float(np.mean([run.cost[n] for run in members])) for n in set.intersection(*names)},
        path=str(first.path),
        plan_hash=None if plan is None else plan.hash,
        layers=max(0 if r.plan is None else r.plan.layers for r in members),
        runs=means,
        repair="" if plan is None else str(plan.repair.get("method", "")),
        heal="" if plan is None else healing_text(plan),
    )


def _mean_score(shares: Mapping[str, float], tables: Mapping[str, Table], row: int, member: int) -> float:
    if not shares:
        return float("nan")
    return float(sum(share * tables[task].members[row][member] for task, share in shares.items()))


def _correct(rows: Sequence[Row], reference: str) -> list[Row]:
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
    """JSON has no nan: it becomes null; what rounding leaves goes."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return number(value) if np.isfinite(value) else None
    return value
