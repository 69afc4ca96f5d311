"""Tables in HTML: the leaderboard that sorts and filters, and plain ones with the numbers of a chart."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from lmms_topoprune.comparison.columns import Column, caption, columns, interval, percent
from lmms_topoprune.comparison.side_by_side import Comparison, Row

TALL = "wide tall"
"""Scrolls in both directions, under headings that stay."""


def board(comparison: Comparison) -> str:
    """The leaderboard; the page's script sorts it by every column and filters it."""
    shown = columns(comparison)
    head = "".join(
        f'<th scope="col" aria-sort="none" title="{html.escape(column.about)}"><button type="button">'
        f"{_breakable(column.heading)}</button></th>"
        for column in shown
    )
    rows = "".join(_line(shown, row) for row in comparison.rows)
    table = (
        '<table id="board" aria-describedby="explained">'
        f"<caption>{len(comparison.rows)} runs; a heading sorts by its column.</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    )
    return (
        '<p><label>Show runs with <input id="filter" type="search" placeholder="topology"></label> '
        '<output id="shown" aria-live="polite"></output></p>'
        f"{scrolling('Leaderboard', table, TALL)}"
        f'<p id="explained">{html.escape(caption(comparison))}</p>{by_task(comparison)}'
    )


def _line(shown: Sequence[Column], row: Row) -> str:
    first, *rest = shown
    texts = "".join(f"<td{_key(c.value(row))}>{html.escape(c.text(row))}</td>" for c in rest)
    return f'<tr><th scope="row">{html.escape(first.text(row))}</th>{texts}</tr>'


def _key(value: float | str) -> str:
    """What a cell is sorted by; nothing where there is no number."""
    known = isinstance(value, float | int) and math.isfinite(value)
    return f' data-value="{value:.9g}"' if known else ""


def _breakable(text: str) -> str:
    return html.escape(text).replace("_", "_<wbr>")


def by_task(comparison: Comparison) -> str:
    """Every task's score with its interval and test, folded away."""
    names = [*comparison.tasks, comparison.overall]
    rows = [
        [
            row.label,
            *(
                f"{percent(c.score)} ({interval(c.score_interval)})"
                for c in [*(row.cells[task] for task in comparison.tasks), row.overall]
            ),
        ]
        for row in comparison.rows
    ]
    return folded("Scores of every task with 95 % intervals", ["run", *names], rows)


def folded(summary: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of texts under a line that opens it."""
    if not rows:
        return ""
    return f"<details><summary>{html.escape(summary)}</summary>{texts(summary, head, rows, TALL)}</details>"


def texts(
    name: str, head: Sequence[str], rows: Sequence[Sequence[str]], css: str = "wide", cell: str = ""
) -> str:
    """A table of texts; the first cell of a row names it, the others are of class `cell`."""
    top = "".join(f'<th scope="col">{_breakable(text)}</th>' for text in head)
    td = f'<td class="{cell}">' if cell else "<td>"
    body = "".join(
        f'<tr><th scope="row">{html.escape(first)}</th>'
        + "".join(f"{td}{html.escape(text)}</td>" for text in rest)
        + "</tr>"
        for first, *rest in rows
    )
    return scrolling(name, f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>", css)


def scrolling(name: str, content: str, css: str = "wide") -> str:
    """What is wider than a phone scrolls by itself, by keys too; the page does not."""
    return f'<div class="{css}" role="group" aria-label="{html.escape(name)}" tabindex="0">{content}</div>'
