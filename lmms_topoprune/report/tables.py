"""A comparison in every form, and written to files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lmms_topoprune._util.files import write, write_all
from lmms_topoprune.comparison.columns import Column, caption, columns, interval, percent
from lmms_topoprune.comparison.formats import csv_table, json_table, latex, markdown
from lmms_topoprune.comparison.side_by_side import Comparison, Row
from lmms_topoprune.errors import unknown
from lmms_topoprune.report.figures import figure
from lmms_topoprune.report.groups import together
from lmms_topoprune.report.render import Section, Table, page
from lmms_topoprune.results.similarity import Shape


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


__all__ = ["FORMATS", "SUFFIXES", "render", "save", "write"]


def html_page(comparison: Comparison) -> str:
    """The leaderboard alone, as a page like a report's."""
    return page("Pruned models compared", "Dense first, then by overall score.", [leaderboard(comparison)])


FORMATS: dict[str, Callable[[Comparison], str]] = {
    "markdown": markdown,
    "csv": csv_table,
    "json": json_table,
    "html": html_page,
    "latex": latex,
}
SUFFIXES = {".md": "markdown", ".csv": "csv", ".json": "json", ".html": "html", ".tex": "latex"}
PICTURES = (".pdf", ".svg")


def render(comparison: Comparison, form: str) -> str:
    """The comparison as text.

    Raises:
        OptionError: `form` is not one of FORMATS.
    """
    if form not in FORMATS:
        raise unknown("format", form, FORMATS)
    return FORMATS[form](comparison)


def checked_targets(paths: Iterable[Path | str]) -> list[Path]:
    """The files that `save` can write, by their names.

    Raises:
        OptionError: a suffix is neither of SUFFIXES nor of PICTURES.
    """
    targets = [Path(path) for path in paths]
    for path in targets:
        if path.suffix not in (*SUFFIXES, *PICTURES):
            raise unknown("output suffix", path.suffix, [*SUFFIXES, *PICTURES])
    return targets


def save(comparison: Comparison, *paths: Path | str, shapes: Mapping[str, Shape] | None = None) -> None:
    """Write the comparison in the forms that the suffixes name, into all files or none.

    Args:
        comparison: what `compare` made of the runs.
        paths: the files.
        shapes: what criteria saw of the states, for figures.

    Raises:
        OptionError: as `checked_targets`.
        MissingExtraError: a figure is asked for and matplotlib is not installed.
        InputError: a file cannot be written.
    """
    targets = checked_targets(paths)
    write_all(
        {
            path: figure(comparison, path.suffix[1:], shapes)
            if path.suffix in PICTURES
            else render(comparison, SUFFIXES[path.suffix])
            for path in targets
        }
    )
