"""A comparison as one table on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lmms_topoprune._util.escape import printable
from lmms_topoprune.comparison.columns import Column, columns, scored_by
from lmms_topoprune.comparison.side_by_side import Comparison

KEPT = ("model", "overall", "corrected")
"""Columns that even the narrowest terminal shows."""
COST_CAPTION = (
    "Memory is the peak while answering: of the GPU if there is one, else of the whole process. An answer's "
    "time is its share of its batch's."
)


def table(comparison: Comparison, title: str, width: int | None = None) -> Table:
    """Dense first, what guessing scores last; everything in percent.

    Args:
        comparison: the runs.
        title: stands above.
        width: letters in a line; columns that do not fit are left out and named below. All fit by default.
    """
    shown = [column for column in columns(comparison) if column.table == "scores"]
    return _table(comparison, shown, title, _caption(comparison), width)


def cost_table(comparison: Comparison, width: int | None = None) -> Table:
    """What each run took, in the order of the leaderboard."""
    shown = columns(comparison)
    costs = [shown[0], *(column for column in shown if column.table == "costs")]
    return _table(comparison, costs, "Cost", COST_CAPTION, width)


def _table(
    comparison: Comparison, wanted: list[Column], title: str, caption: str, width: int | None
) -> Table:
    shown = wanted if width is None else _fitting(comparison, wanted, width)
    if left_out := [column.short for column in wanted if column not in shown]:
        caption += f" Too wide for this terminal: {', '.join(left_out)}."
    found = Table(
        title=Text(title), title_justify="left", caption_justify="left", caption=Text(printable(caption))
    )
    for column in shown:
        heading = printable(column.short)
        found.add_column(
            Text(heading if width is None else "\n".join(heading.rsplit(" ", 1))),
            justify="right" if column.is_number else "left",
            style="bold" if column.name == "overall" else None,
            no_wrap=column.is_number,
        )
    for row in comparison.rows:
        found.add_row(*(Text(printable(column.text(row))) for column in shown))
    if any(column.chance for column in shown):
        found.add_section()
        found.add_row("chance", *(Text(column.chance) for column in shown[1:]), style="dim")
    return found


def _fitting(comparison: Comparison, wanted: list[Column], width: int) -> list[Column]:
    """The columns that fit side by side; what says least about a run goes first, tasks from the last on."""
    tasks = [column.name for column in reversed(wanted) if column.name.startswith("task ")]
    last = [column.name for column in reversed(wanted) if column.name not in KEPT]
    shown = list(wanted)
    for name in dict.fromkeys(["retention", *tasks, "p", "dropped", "corrected_interval", *last]):
        if 1 + sum(_least_width(comparison, column) + 3 for column in shown) <= width:
            break
        shown = [column for column in shown if column.name != name]
    return shown


def _least_width(comparison: Comparison, column: Column) -> int:
    """Letters of the widest number; of text, which may be broken between words, of the longest word."""
    texts = [column.chance, *(column.text(row) for row in comparison.rows)]
    whole = texts if column.is_number else [word for text in texts for word in text.split()]
    return max(len(word) for word in [*whole, *column.short.rsplit(" ", 1)])


def show_texts(title: str, head: list[str], lines: list[list[str]], caption: str) -> None:
    """Print a table of texts, the first column of which names its rows."""
    found = Table(
        title=Text(title), title_justify="left", caption_justify="left", caption=Text(printable(caption))
    )
    for number, text in enumerate(head):
        found.add_column(Text(printable(text)), justify="right" if number else "left", overflow="fold")
    for line in lines:
        found.add_row(*(Text(printable(text)) for text in line))
    _console().print(found)


def _caption(comparison: Comparison) -> str:
    return (
        f"{scored_by(comparison)} Retention: score / dense score; over chance: (score - chance) / (dense - "
        "chance), with its paired bootstrap interval; p: paired test against "
        f"{comparison.reference}, Holm-corrected." + "".join(f" {note}" for note in comparison.notes)
    )


def show(comparison: Comparison, title: str, *, costs: bool = False) -> None:
    """Print the table to standard output; wide enough to stay whole where there is no terminal."""
    console = _console()
    width = console.width if console.is_terminal else None
    console.print(table(comparison, title, width))
    if costs and any(row.cost for row in comparison.rows):
        console.print(cost_table(comparison, width))


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=150)
