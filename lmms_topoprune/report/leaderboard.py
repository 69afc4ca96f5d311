"""The leaderboard: the comparison's columns, calibration seeds folded into one line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np

from lmms_topoprune.comparison.columns import Column, caption, columns, interval, percent
from lmms_topoprune.comparison.side_by_side import Comparison, Row
from lmms_topoprune.report.groups import groups
from lmms_topoprune.report.render import Section, Table


@dataclass(frozen=True)
class Entry:
    """One line of the leaderboard, and the lines that it stands for."""

    row: Row
    seeds: tuple[Row, ...] = ()


@dataclass(frozen=True)
class Leaderboard:
    """What its template shows."""

    columns: Sequence[Column]
    entries: Sequence[Entry]
    caption: str
    by_task: Table
    csv: str

    @property
    def has_seeds(self) -> bool:
        return any(entry.seeds for entry in self.entries)


def leaderboard(comparison: Comparison, csv: str) -> Section:
    """The section; `csv` is the whole comparison, to be saved."""
    shown = [column for column in columns(comparison) if _has_values(column, comparison.rows)]
    content = Leaderboard(shown, entries(comparison), caption(comparison), by_task(comparison), csv)
    return Section("leaderboard", "Leaderboard", "leaderboard.html", content)


def _has_values(column: Column, rows: Sequence[Row]) -> bool:
    """Whether there is more than dashes in it; a cost that no run tells needs no room."""
    return column.table != "costs" or any(column.value(row) == column.value(row) for row in rows)


def entries(comparison: Comparison) -> list[Entry]:
    """Dense runs first, then by what is kept; seeds are put together."""
    found = [Entry(row) for row in comparison.rows if row.criterion == "dense"]
    for group in sorted(groups(comparison), key=lambda group: -np.nan_to_num(group.kept)):
        first = group.rows[0]
        if len(group.rows) == 1:
            found.append(Entry(first))
        else:
            label = f"{group.criterion} {percent(group.sparsity, 0)} %"
            mean = replace(mean_of(group.rows), label=label)
            found.append(Entry(mean, group.rows))
    return found


def mean_of(values: Sequence[Any]) -> Any:
    """The mean of numbers, and of what holds numbers, part by part; of texts the first."""
    first = values[0]
    if isinstance(first, float):
        return float(np.mean(values))
    if is_dataclass(first) and not isinstance(first, type):
        parts = {f.name: mean_of([getattr(value, f.name) for value in values]) for f in fields(first)}
        return replace(first, **parts)
    if isinstance(first, dict):
        return {name: mean_of([v[name] for v in values]) for name in first if all(name in v for v in values)}
    return first


def by_task(comparison: Comparison) -> Table:
    """Every task's score with its interval."""
    names = [*comparison.tasks, comparison.overall]
    rows = [
        [
            row.label,
            *(
                f"{percent(cell.score)} ({interval(cell.score_interval)})"
                for cell in (*(row.cells[task] for task in comparison.tasks), row.overall)
            ),
        ]
        for row in comparison.rows
    ]
    return Table("Scores of every task with 95 % intervals", ["run", *names], rows)
