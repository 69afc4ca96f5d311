"""What a comparison shows: one list of columns, which every table, chart caption and file follows.

A new column is one entry in `columns`: the terminal table, Markdown, LaTeX, HTML, CSV and JSON take it from
there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from lmms_topoprune.comparison.side_by_side import Cell, Comparison, Row
from lmms_topoprune.comparison.statistics import Interval
from lmms_topoprune.plan import parse_layers

DASH = "–"
Value = float | str
Table = Literal["scores", "costs"]


@dataclass(frozen=True)
class Column:
    """One column of a comparison.

    Attributes:
        name: in JSON.
        heading: in wide tables.
        short: in the terminal.
        about: what it is, for a tooltip.
        value: what a row is sorted by, in the column's own unit; nan where there is none.
        text: how a row shows it.
        fields: names and values of the column in CSV, one line a run and task, at full precision.
        chance: what guessing scores, as text; the terminal has a line of these.
        table: which of the terminal's two tables has it; None for neither.
        is_number: shown as a number, at the right and in one line.
    """

    name: str
    heading: str
    short: str
    about: str
    value: Callable[[Row], Value]
    text: Callable[[Row], str]
    fields: Mapping[str, Callable[[Row, Cell], Value]] = field(default_factory=dict)
    chance: str = ""
    table: Table | None = "scores"
    is_number: bool = True


def percent(value: float, digits: int = 1) -> str:
    """A share as a percentage without its sign; a dash for no value."""
    return DASH if not math.isfinite(value) else f"{100 * value:.{digits}f}"


def interval(value: Interval, own_scale: bool = False) -> str:
    shown = amount if own_scale else percent
    return DASH if not math.isfinite(value.low) else f"{shown(value.low)} to {shown(value.high)}"


def p_value(value: float) -> str:
    if not math.isfinite(value):
        return DASH
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def amount(value: float | None, factor: float = 1.0) -> str:
    """About three digits; a dash for no value."""
    if value is None or not math.isfinite(value):
        return DASH
    size = abs(value * factor)
    return f"{value * factor:.{0 if size >= 100 else 1 if size >= 10 else 2}f}"


def dropped(row: Row) -> str:
    """How many layers went, and which: a threshold's number is nobody's wish."""
    each = [0 if text == "none" else len(parse_layers(text)) for text in row.dropped.split(" / ")]
    count = str(each[0]) if len(set(each)) == 1 else f"{min(each)} to {max(each)}"
    return f"{count}: {row.dropped}" if any(each) else "none"


def columns(comparison: Comparison) -> list[Column]:
    """Every column, in order."""
    return [
        *_whose(),
        *_overall(comparison),
        *(_task(comparison, task) for task in comparison.tasks),
        *(_cost(*entry) for entry in COSTS),
        _dropped(),
    ]


def _whose() -> list[Column]:
    fields: dict[str, Callable[[Row, Cell], Value]] = {
        "model": lambda row, _: row.label,
        "criterion": lambda row, _: row.criterion,
        "repair": lambda row, _: row.repair,
        "heal": lambda row, _: row.heal,
        "sparsity": lambda row, _: row.sparsity,
        "seeds": lambda row, _: float(len(row.runs)),
        "plan": lambda row, _: row.plan_hash or "",
    }
    about = "criterion with its options, and the share of layers it was to drop"
    label = (lambda r: r.label, lambda r: r.label)
    return [Column("model", "model", "model", about, *label, fields, is_number=False)]


def score_text(comparison: Comparison, task: str, cell: Cell) -> str:
    """A score in percent, or on a task's own scale; with a star where no document was scored."""
    shown = (amount if task in comparison.own_scale else percent)(cell.score)
    return shown if comparison.units.get(task, 1) else f"{shown}*"


def _overall(comparison: Comparison) -> list[Column]:
    name, reference = comparison.overall, comparison.reference
    chance = percent(comparison.rows[0].overall.chance)
    alike = next(iter(comparison.averaged), "")  # all tasks in the mean have the same scale
    found = [
        Column(
            "overall",
            name,
            name,
            "mean of the tasks",
            lambda row: row.overall.score,
            lambda row: score_text(comparison, alike, row.overall),
            {
                "score": lambda _, cell: cell.score,
                "score_low": lambda _, cell: cell.score_interval.low,
                "score_high": lambda _, cell: cell.score_interval.high,
            },
            chance,
        ),
        Column(
            "chance",
            "chance",
            "chance",
            "mean of what guessing scores in the tasks",
            lambda row: row.overall.chance,
            lambda row: percent(row.overall.chance),
            {"chance": lambda _, cell: cell.chance},
            table=None,
        ),
        Column(
            "retention",
            "retention",
            "retention",
            "score / dense score",
            lambda row: row.overall.retention,
            lambda row: percent(row.overall.retention),
            {
                "retention": lambda _, cell: cell.retention,
                "retention_low": lambda _, cell: cell.retention_interval.low,
                "retention_high": lambda _, cell: cell.retention_interval.high,
            },
        ),
        Column(
            "corrected",
            "over chance",
            "over chance",
            "(score - chance) / (dense - chance)",
            lambda row: row.overall.corrected,
            lambda row: percent(row.overall.corrected),
            {"corrected": lambda _, cell: cell.corrected},
        ),
        Column(
            "corrected_interval",
            "95 % interval",
            "95 % interval",
            "of what is kept over chance, from a paired bootstrap",
            lambda row: row.overall.corrected_interval.low,
            lambda row: interval(row.overall.corrected_interval),
            {
                "corrected_low": lambda _, cell: cell.corrected_interval.low,
                "corrected_high": lambda _, cell: cell.corrected_interval.high,
            },
        ),
        Column(
            "p",
            f"p against {reference}",
            "p",
            "paired sign-flip test, Holm-corrected over the runs",
            lambda row: float("nan") if row.label == reference else row.overall.p_holm,
            lambda row: DASH if row.label == reference else p_value(row.overall.p_holm),
            {
                "difference": lambda _, cell: cell.difference,
                "difference_low": lambda _, cell: cell.difference_interval.low,
                "difference_high": lambda _, cell: cell.difference_interval.high,
                "p": lambda _, cell: cell.p,
                "p_holm": lambda _, cell: cell.p_holm,
            },
        ),
    ]
    return found


def _task(comparison: Comparison, task: str) -> Column:
    return Column(
        f"task {task}",
        task,
        task.removeprefix("topoprune_"),
        f"{comparison.tasks[task]}, {comparison.units[task]} units",
        lambda row: row.cells[task].score,
        lambda row: score_text(comparison, task, row.cells[task]),
        chance=percent(comparison.rows[0].cells[task].chance),
    )


COSTS = (
    ("latency_seconds", "ms an answer", 1000.0, "an answer's share of its batch's time"),
    ("tokens_per_second", "tokens/s", 1.0, "generated tokens / time in generate()"),
    ("parameters", "parameters (M)", 1e-6, "parameters that are left, in millions"),
    ("memory_bytes", "memory (MB)", 1e-6, "peak while answering: of the GPU if any, else of the process"),
    (
        "calibration_seconds",
        "calibration (s)",
        1.0,
        "calibration pass, scoring, selection, trials, repair and healing",
    ),
)
"""Name in Row.cost, heading, factor, what it is."""


def _cost(name: str, heading: str, factor: float, about: str) -> Column:
    return Column(
        name,
        heading,
        heading,
        about,
        lambda row: row.cost.get(name, float("nan")),
        lambda row: amount(row.cost.get(name), factor),
        {name: lambda row, _: row.cost.get(name, float("nan"))},
        table="costs",
    )


def _dropped() -> Column:
    return Column(
        "dropped",
        "dropped layers",
        "dropped layers",
        "how many, and which, counted from 0",
        lambda row: round(row.sparsity, 6),
        dropped,
        {"dropped": lambda row, _: row.dropped},
        is_number=False,
    )


def scored_by(comparison: Comparison) -> str:
    """Every task with its metric and filter, its units and its chance level."""
    first, starred = comparison.rows[0], " *: as lmms-eval reports it, without an interval."
    tasks = ", ".join(
        f"{task} ({metric}, {comparison.units[task]} units, chance {percent(first.cells[task].chance)})"
        for task, metric in comparison.tasks.items()
    )
    scales = f" but for {', '.join(comparison.own_scale)}" if comparison.own_scale else ""
    some = starred if not all(comparison.units.values()) else ""
    return f"Scores in percent{scales}; {comparison.overall} is the mean of the tasks: {tasks}.{some}"


def caption(comparison: Comparison) -> str:
    """What a reader has to know of the numbers, in one paragraph."""
    notes = "".join(f" {note}" for note in comparison.notes)
    return (
        f"{scored_by(comparison)} "
        "Retention: score / dense score; over chance: (score - chance) / (dense - chance), with its "
        f"95 % interval from a paired bootstrap over units ({comparison.rounds} rounds). p: paired sign-flip "
        f"test against {comparison.reference}, Holm-corrected over the runs. Memory: peak while answering, "
        f"of the GPU if there is one, else of the whole process.{notes}"
    )
