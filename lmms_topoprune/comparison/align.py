"""Runs side by side: the same units in the same order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from lmms_topoprune.errors import InputError
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
