"""A comparison as one table on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lmms_topoprune._util.escape import printable
from lmms_topoprune.comparison.columns import Column, columns
from lmms_topoprune.comparison.side_by_side import Comparison

COST_CAPTION = (
    "Memory is the peak while answering: of the GPU if there is one, else of the whole process. An answer's "
    "time is its share of its batch's."
)


def table(comparison: Comparison, title: str) -> Table:
    """Dense first, what guessing scores last; everything in percent."""
    shown = [column for column in columns(comparison) if column.table == "scores"]
    found = _table(comparison, shown, title, _caption(comparison))
    found.add_section()
    found.add_row("chance", *(Text(column.chance) for column in shown[1:]), style="dim")
    return found


def cost_table(comparison: Comparison) -> Table:
    """What each run took, in the order of the leaderboard."""
    shown = columns(comparison)
    costs = [shown[0], *(column for column in shown if column.table == "costs")]
    return _table(comparison, costs, "Cost", COST_CAPTION)


def _table(comparison: Comparison, shown: list[Column], title: str, caption: str) -> Table:
    found = Table(
        title=Text(title), title_justify="left", caption_justify="left", caption=Text(printable(caption))
    )
    for column in shown:
        found.add_column(
            Text(printable(column.short)),
            justify="right" if column.is_number else "left",
            style="bold" if column.name == "overall" else None,
            overflow="ellipsis" if column.is_number else "fold",
        )
    for row in comparison.rows:
        found.add_row(*(Text(printable(column.text(row))) for column in shown))
    return found


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
        "All numbers in percent. Retention: score / dense score; over chance: (score - chance) / (dense - "
        "chance), with its paired bootstrap interval; p: paired test against "
        f"{comparison.reference}, Holm-corrected." + "".join(f" {note}" for note in comparison.notes)
    )


def show(comparison: Comparison, title: str, *, costs: bool = False) -> None:
    """Print the table to standard output; wide enough to stay whole where there is no terminal."""
    console = _console()
    console.print(table(comparison, title))
    if costs and any(row.cost for row in comparison.rows):
        console.print(cost_table(comparison))


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=150)
