"""A comparison as text: Markdown, LaTeX, CSV and JSON, all from the one list of columns."""

from __future__ import annotations

import csv
import io
import json
import math
from typing import Any

from lmms_topoprune._util import escape
from lmms_topoprune.comparison.columns import Column, Value, caption, columns
from lmms_topoprune.comparison.side_by_side import Comparison


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
