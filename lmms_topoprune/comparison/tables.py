"""A comparison as Markdown, CSV, JSON or a small HTML page."""

from __future__ import annotations

import csv
import html
import io
import json
import math
from collections.abc import Callable
from pathlib import Path

from lmms_topoprune import files
from lmms_topoprune.comparison.compare import OVERALL, Comparison, Row
from lmms_topoprune.comparison.statistics import Interval
from lmms_topoprune.errors import InputError, unknown


def percent(value: float, digits: int = 1) -> str:
    """A share as a percentage without its sign; a dash for no value."""
    return "–" if not math.isfinite(value) else f"{100 * value:.{digits}f}"


def interval(value: Interval) -> str:
    return "–" if not math.isfinite(value.low) else f"{percent(value.low)} to {percent(value.high)}"


def p_value(value: float) -> str:
    if not math.isfinite(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def headings(comparison: Comparison) -> list[str]:
    return [
        "model",
        *comparison.tasks,
        OVERALL,
        "chance",
        "retention",
        "chance-corrected",
        "95 % interval",
        f"p against {comparison.reference}",
        "dropped layers",
        "tokens/s",
        "answering s",
        "calibration s",
    ]


def cells(comparison: Comparison, row: Row) -> list[str]:
    """The leaderboard's texts of one run: shares in percent, the corrected retention's interval."""
    overall = row.overall
    costs = [
        row.cost.get(name) for name in ("tokens_per_second", "generation_seconds", "calibration_seconds")
    ]
    return [
        row.label,
        *(percent(row.cells[task].score) for task in comparison.tasks),
        percent(overall.score),
        percent(overall.chance),
        percent(overall.retention),
        percent(overall.corrected),
        interval(overall.corrected_interval),
        "–" if row.label == comparison.reference else p_value(overall.p_holm),
        row.dropped,
        *("–" if cost is None else f"{cost:.1f}" for cost in costs),
    ]


def caption(comparison: Comparison) -> str:
    counted = ", ".join(f"{comparison.units[task]} in {task}" for task in comparison.tasks)
    notes = "".join(f" {note}" for note in comparison.notes)
    return (
        "Scores in percent; overall is the mean of the tasks. Retention: score / dense score; "
        "chance-corrected: (score - chance) / (dense - chance), with its 95 % interval from a paired "
        f"bootstrap over units ({comparison.rounds} rounds; {counted}). p: paired sign-flip test against "
        f"{comparison.reference}, Holm-corrected over the runs.{notes}"
    )


def markdown(comparison: Comparison) -> str:
    lines = [headings(comparison), *(cells(comparison, row) for row in comparison.rows)]
    body = ["| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines]
    rule = "|" + "---|" + "---:|" * (len(lines[0]) - 1)
    return "\n".join([body[0], rule, *body[1:], "", caption(comparison), ""])


CSV_COLUMNS = (
    *("model", "criterion", "sparsity", "dropped", "task", "score", "chance"),
    *("retention", "retention_low", "retention_high", "corrected", "corrected_low", "corrected_high"),
    *("difference", "difference_low", "difference_high", "p", "p_holm"),
)


def csv_table(comparison: Comparison) -> str:
    """One line a run and score column, every number at full precision; empty where there is none."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for row in comparison.rows:
        for task, cell in row.cells.items():
            numbers = [cell.score, cell.chance, cell.retention]
            numbers += [cell.retention_interval.low, cell.retention_interval.high, cell.corrected]
            numbers += [cell.corrected_interval.low, cell.corrected_interval.high, cell.difference]
            numbers += [cell.difference_interval.low, cell.difference_interval.high, cell.p, cell.p_holm]
            texts = [repr(n) if math.isfinite(n) else "" for n in numbers]
            writer.writerow([row.label, row.criterion, row.sparsity, row.dropped, task, *texts])
    return out.getvalue()


def json_table(comparison: Comparison) -> str:
    return json.dumps(comparison.to_json(), indent=2, allow_nan=False) + "\n"


STYLE = """
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;margin:1.5rem auto;max-width:75rem;padding:0 1rem}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;width:100%}
caption{text-align:left;padding:.5rem 0;max-width:60rem}
th,td{padding:.35rem .6rem;border-bottom:1px solid color-mix(in srgb,currentColor 25%,transparent)}
td{text-align:right;white-space:nowrap} th{text-align:left;vertical-align:bottom}
"""


def html_table(comparison: Comparison) -> str:
    """The table element alone, for a page of its own or a report."""
    head = "".join(f'<th scope="col">{html.escape(text)}</th>' for text in headings(comparison))
    body = []
    for row in comparison.rows:
        first, *rest = (html.escape(text) for text in cells(comparison, row))
        columns = "".join(f"<td>{text}</td>" for text in rest)
        body.append(f'<tr><th scope="row">{first}</th>{columns}</tr>')
    return (
        f'<div class="wide" tabindex="0"><table><caption>{html.escape(caption(comparison))}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def html_page(comparison: Comparison) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Pruned models compared</title><style>{STYLE}</style></head>"
        f"<body><h1>Pruned models compared</h1>{html_table(comparison)}</body></html>\n"
    )


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


def save(comparison: Comparison, path: Path | str) -> None:
    """Write the comparison in the form its suffix names.

    Raises:
        OptionError: the suffix is none of SUFFIXES.
        InputError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise unknown("output suffix", path.suffix, SUFFIXES)
    write(path, render(comparison, SUFFIXES[path.suffix]))


def write(path: Path, text: str) -> None:
    """Write a text file whole or not at all.

    Raises:
        InputError: the file cannot be written; nothing was overwritten.
    """
    try:
        files.write_text(path, text)
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be written: {error.strerror}; nothing was changed") from None
