"""A comparison in every form, and written to files."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmms_topoprune._util import escape
from lmms_topoprune._util.files import write, write_all
from lmms_topoprune.comparison.columns import Column, Value, caption, columns, interval, percent
from lmms_topoprune.comparison.side_by_side import Comparison, Row
from lmms_topoprune.errors import unknown
from lmms_topoprune.report.figures import figure
from lmms_topoprune.report.groups import together
from lmms_topoprune.report.render import Section, Table, page
from lmms_topoprune.results.similarity import Shape


def markdown(comparison: Comparison) -> str:
    shown = columns(comparison)
    lines = [[column.heading for column in shown]]
    lines += [[column.text(row) for column in shown] for row in comparison.rows]
    body = ["| " + " | ".join(map(escape.markdown, line)) + " |" for line in lines]
    rule = "|" + "---|" + "---:|" * (len(shown) - 1)
    return "\n".join([body[0], rule, *body[1:], "", escape.markdown(caption(comparison)), ""])


def latex(comparison: Comparison) -> str:
    """A table for a paper, of package booktabs: what the terminal shows, and the caption."""
    shown = [column for column in columns(comparison) if column.table == "scores"]
    lines = [[column.text(row) for column in shown] for row in comparison.rows]
    kinds = "".join("r" if column.is_number else "l" for column in shown)
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape.latex(caption(comparison))}}}",
            rf"\begin{{tabular}}{{{kinds}}}",
            r"\toprule",
            _latex_line([column.short for column in shown]),
            r"\midrule",
            *map(_latex_line, lines),
            r"\midrule",
            _latex_line(["chance", *(column.chance for column in shown[1:])]),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _latex_line(texts: list[str]) -> str:
    return " & ".join(map(escape.latex, texts)) + r" \\"


def csv_table(comparison: Comparison) -> str:
    """One line a run and score column, numbers to twelve digits; empty where there is none."""
    fields = {name: get for column in columns(comparison) for name, get in column.fields.items()}
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    first = next(iter(fields))
    writer.writerow([first, "task", "metric", "units", *(name for name in fields if name != first)])
    for row in comparison.rows:
        for task, cell in [*row.cells.items(), (comparison.overall, row.overall)]:
            values = [_cell(get(row, cell)) for get in fields.values()]
            metric = "mean" if cell is row.overall else comparison.tasks[task]
            units = sum(comparison.units.values()) if cell is row.overall else comparison.units[task]
            writer.writerow([values[0], *map(escape.csv_cell, (task, metric)), units, *values[1:]])
    return out.getvalue()


def _cell(value: Value) -> str:
    if isinstance(value, str):
        return escape.csv_cell(value)
    return repr(escape.number(value)) if math.isfinite(value) else ""


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison with, for each run, the value of every column; null where there is none."""
    shown, value = columns(comparison), comparison.to_json()
    value["columns"] = {column.name: column.heading for column in shown}
    for entry, row in zip(value["rows"], comparison.rows, strict=True):
        entry["values"] = {column.name: _value(column, column.value(row)) for column in shown}
    return value


def json_table(comparison: Comparison) -> str:
    return json.dumps(as_json(comparison), indent=2, allow_nan=False) + "\n"


def _value(column: Column, value: Value) -> Value | None:
    if isinstance(value, str):
        return value
    return escape.number(value) if math.isfinite(value) else None


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
