"""The leaderboard: the comparison's columns, calibration seeds below their mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lmms_topoprune.comparison.columns import Column, caption, columns, interval, percent
from lmms_topoprune.comparison.formats import csv_table
from lmms_topoprune.comparison.side_by_side import Comparison, Row
from lmms_topoprune.report.groups import together
from lmms_topoprune.report.render import Section, Table


@dataclass(frozen=True)
class Entry:
    """One line of the leaderboard, and the seeds that it is the mean of."""

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


def leaderboard(comparison: Comparison) -> Section:
    """The section; the seeds behind a mean unfold if the comparison has a row for each."""
    shown = [column for column in columns(comparison) if _has_values(column, comparison.rows)]
    own = {row.label: row for row in comparison.rows}
    entries = [Entry(row, _seeds(row, own)) for row in together(comparison)]
    csv = csv_table(comparison)
    content = Leaderboard(shown, entries, caption(comparison), by_task(comparison), csv)
    return Section("leaderboard", "Leaderboard", "leaderboard.html", content)


def _seeds(row: Row, own: dict[str, Row]) -> tuple[Row, ...]:
    return tuple(own[label] for label in row.runs if label in own) if len(row.runs) > 1 else ()


def _has_values(column: Column, rows: Sequence[Row]) -> bool:
    """Whether there is more than dashes in it; a cost that no run tells needs no room."""
    return column.table != "costs" or any(column.value(row) == column.value(row) for row in rows)


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
