"""A comparison as Markdown, CSV, JSON or a page of HTML, and written to files."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable
from pathlib import Path

from lmms_topoprune._util.output import write, write_all
from lmms_topoprune.comparison.side_by_side import Comparison
from lmms_topoprune.comparison.wording import COSTS, caption, cells, headings
from lmms_topoprune.errors import unknown
from lmms_topoprune.report.leaderboard import board
from lmms_topoprune.report.page import document

__all__ = ["FORMATS", "SUFFIXES", "render", "save", "write"]


def markdown(comparison: Comparison) -> str:
    lines = [headings(comparison), *(cells(comparison, row) for row in comparison.rows)]
    body = ["| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines]
    rule = "|" + "---|" + "---:|" * (len(lines[0]) - 1)
    return "\n".join([body[0], rule, *body[1:], "", caption(comparison), ""])


CSV_COLUMNS = (
    *("model", "criterion", "sparsity", "dropped", "task", "score", "chance"),
    *("retention", "retention_low", "retention_high", "corrected", "corrected_low", "corrected_high"),
    *("difference", "difference_low", "difference_high", "p", "p_holm"),
    *(name for name, _, _ in COSTS),
)


def csv_table(comparison: Comparison) -> str:
    """One line a run and score column, every number at full precision; empty where there is none."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for row in comparison.rows:
        costs = [row.cost.get(name, float("nan")) for name, _, _ in COSTS]
        for task, cell in row.cells.items():
            numbers = [cell.score, cell.chance, cell.retention]
            numbers += [cell.retention_interval.low, cell.retention_interval.high, cell.corrected]
            numbers += [cell.corrected_interval.low, cell.corrected_interval.high, cell.difference]
            numbers += [cell.difference_interval.low, cell.difference_interval.high, cell.p, cell.p_holm]
            texts = [repr(float(n)) if math.isfinite(n) else "" for n in (*numbers, *costs)]
            writer.writerow([row.label, row.criterion, row.sparsity, row.dropped, task, *texts])
    return out.getvalue()


def json_table(comparison: Comparison) -> str:
    return json.dumps(comparison.to_json(), indent=2, allow_nan=False) + "\n"


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
