"""A comparison as Markdown, CSV, JSON or a page of HTML, and written to files."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable
from pathlib import Path

from lmms_topoprune._util.output import write, write_all
from lmms_topoprune.comparison.columns import Value, caption, columns
from lmms_topoprune.comparison.side_by_side import Comparison
from lmms_topoprune.errors import unknown
from lmms_topoprune.report.leaderboard import board
from lmms_topoprune.report.page import document

__all__ = ["FORMATS", "SUFFIXES", "render", "save", "write"]


def markdown(comparison: Comparison) -> str:
    shown = columns(comparison)
    lines = [[column.heading for column in shown]]
    lines += [[column.text(row) for column in shown] for row in comparison.rows]
    body = ["| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines]
    rule = "|" + "---|" + "---:|" * (len(shown) - 1)
    return "\n".join([body[0], rule, *body[1:], "", caption(comparison), ""])


def csv_table(comparison: Comparison) -> str:
    """One line a run and score column, every number at full precision; empty where there is none."""
    fields = {name: get for column in columns(comparison) for name, get in column.fields.items()}
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    first = next(iter(fields))
    writer.writerow([first, "task", *(name for name in fields if name != first)])
    for row in comparison.rows:
        for task, cell in [*row.cells.items(), (comparison.overall, row.overall)]:
            values = [_full(get(row, cell)) for get in fields.values()]
            writer.writerow([values[0], task, *values[1:]])
    return out.getvalue()


def _full(value: Value) -> str:
    """Every digit of a number; nothing where there is none."""
    return value if isinstance(value, str) else repr(float(value)) if math.isfinite(value) else ""


def json_table(comparison: Comparison) -> str:
    """The comparison with, for each run, the value of every column; null where there is none."""
    shown, value = columns(comparison), comparison.to_json()
    value["columns"] = {column.name: column.heading for column in shown}
    for entry, row in zip(value["rows"], comparison.rows, strict=True):
        entry["values"] = {column.name: _or_null(column.value(row)) for column in shown}
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def _or_null(value: Value) -> Value | None:
    return value if isinstance(value, str) or math.isfinite(value) else None


def html_page(comparison: Comparison) -> str:
    """The leaderboard alone, as a page like a report's: sorted by a click, filtered by typing."""
    sections = [("leaderboard", "Leaderboard", board(comparison))]
    return document("Pruned models compared", "Dense first, then by overall score.", sections)


FORMATS: dict[str, Callable[[Comparison], str]] = {
    "markdown": markdown,
    "csv": csv_table,
    "json": json_table,
    "html": html_page,
}
SUFFIXES = {".md": "markdown", ".csv": "csv", ".json": "json", ".html": "html"}


def render(comparison: Comparison, form: str) -> str:
    """The comparison as text.

    Raises:
        OptionError: `form` is not one of FORMATS.
    """
    if form not in FORMATS:
        raise unknown("format", form, FORMATS)
    return FORMATS[form](comparison)


def save(comparison: Comparison, *paths: Path | str) -> None:
    """Write the comparison in the forms that the suffixes name, into all files or none.

    Raises:
        OptionError: a suffix is none of SUFFIXES.
        InputError: a file cannot be written.
    """
    targets = [Path(path) for path in paths]
    for path in targets:
        if path.suffix not in SUFFIXES:
            raise unknown("output suffix", path.suffix, SUFFIXES)
    write_all({path: render(comparison, SUFFIXES[path.suffix]) for path in targets})
