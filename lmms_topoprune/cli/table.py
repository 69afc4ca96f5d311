"""A comparison as one table on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from lmms_topoprune.comparison.side_by_side import OVERALL, Comparison, Row
from lmms_topoprune.comparison.wording import COSTS, amount, dropped, interval, p_value, percent

COST_CAPTION = (
    "Memory is the peak while answering: of the GPU if there is one, else of the whole process. An answer's "
    "time is its share of its batch's."
)


def short(task: str) -> str:
    return task.removeprefix("topoprune_")


def table(comparison: Comparison, title: str) -> Table:
    """Dense first, what guessing scores last; everything in percent."""
    board = Table(title=title, title_justify="left", caption_justify="left", caption=_caption(comparison))
    board.add_column("model", overflow="fold")
    for name in (*comparison.tasks, OVERALL):
        board.add_column(short(name), justify="right", style="bold" if name == OVERALL else None)
    for name in ("kept", "kept over chance", "95 % interval", "p"):
        board.add_column(name, justify="right")
    board.add_column("dropped layers", overflow="fold")
    for row in comparison.rows:
        board.add_row(*_cells(comparison, row))
    first = comparison.rows[0]
    chances = [percent(first.cells[name].chance) for name in (*comparison.tasks, OVERALL)]
    board.add_section()
    board.add_row("chance", *chances, "", "", "", "", "", style="dim")
    return board


def _cells(comparison: Comparison, row: Row) -> list[str]:
    overall = row.overall
    scores = [percent(row.cells[name].score) for name in (*comparison.tasks, OVERALL)]
    p = "" if row.label == comparison.reference else p_value(overall.p_holm)
    kept = [percent(overall.retention), percent(overall.corrected)]
    return [row.label, *scores, *kept, interval(overall.corrected_interval), p, dropped(row)]


def _caption(comparison: Comparison) -> str:
    return (
        "All numbers in percent. kept: score / dense score; kept over chance: (score - chance) / (dense - "
        "chance), with its paired bootstrap interval; p: paired test against "
        f"{comparison.reference}, Holm-corrected." + "".join(f" {note}" for note in comparison.notes)
    )


def cost_table(comparison: Comparison) -> Table:
    """What each run took, in the order of the leaderboard."""
    board = Table(title="Cost", title_justify="left", caption_justify="left", caption=COST_CAPTION)
    board.add_column("model", overflow="fold")
    for _, heading, _ in COSTS:
        board.add_column(heading, justify="right")
    for row in comparison.rows:
        board.add_row(row.label, *(amount(row.cost.get(name), factor) for name, _, factor in COSTS))
    return board


def show(comparison: Comparison, title: str, *, costs: bool = False) -> None:
    """Print the table to standard output; wide enough to stay whole where there is no terminal."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=150)
    console.print(table(comparison, title))
    if costs and any(row.cost for row in comparison.rows):
        console.print(cost_table(comparison))
