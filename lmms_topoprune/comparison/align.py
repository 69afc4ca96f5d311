"""Runs side by side: the same units in the same order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
    shared = set(rows[0].units).intersection(*(row.units for row in rows[1:]))
    if not shared:
        raise InputError(f"the runs have no document of task {task!r} in common")
    if len({row.metric for row in rows}) > 1:
        metrics = " and ".join(sorted({row.metric for row in rows}))
        raise InputError(f"the runs are scored differently in task {task!r}: by {metrics}")
    order = [unit for unit in rows[0].units if unit in shared]
    return [row.of(order) for row in rows]
