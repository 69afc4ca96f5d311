"""How a comparison's numbers are written, in every form alike."""

from __future__ import annotations

import math

from lmms_topoprune.comparison.side_by_side import OVERALL, Comparison, Row
from lmms_topoprune.comparison.statistics import Interval
from lmms_topoprune.plan import parse_layers


def percent(value: float, digits: int = 1) -> str:
    """A share as a percentage without its sign; a dash for no value."""
    return "–" if not math.isfinite(value) else f"{100 * value:.{digits}f}"


def interval(value: Interval) -> str:
    return "–" if not math.isfinite(value.low) else f"{percent(value.low)} to {percent(value.high)}"


def p_value(value: float) -> str:
    if not math.isfinite(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


COSTS = (
    ("latency_seconds", "ms an answer", 1000.0),
    ("tokens_per_second", "tokens/s", 1.0),
    ("parameters", "parameters (M)", 1e-6),
    ("memory_bytes", "memory (MB)", 1e-6),
    ("calibration_seconds", "calibration (s)", 1.0),
)
"""Name in Row.cost, heading, factor."""


def amount(value: float | None, factor: float = 1.0) -> str:
    """About three digits; a dash for no value."""
    if value is None or not math.isfinite(value):
        return "–"
    size = abs(value * factor)
    return f"{value * factor:.{0 if size >= 100 else 1 if size >= 10 else 2}f}"


def headings(comparison: Comparison) -> list[str]:
    return [
        "model",
        OVERALL,
        "chance",
        "retention",
        "chance-corrected",
        "95 % interval",
        f"p against {comparison.reference}",
        *comparison.tasks,
        *(heading for _, heading, _ in COSTS),
        "dropped layers",
    ]


def dropped(row: Row) -> str:
    """How many layers went, and which: a threshold's number is nobody's wish."""
    count = 0 if row.dropped == "none" else len(parse_layers(row.dropped))
    return f"{count}: {row.dropped}" if count else "none"


def cells(comparison: Comparison, row: Row) -> list[str]:
    """The leaderboard's texts of one run: shares in percent, the corrected retention's interval."""
    overall = row.overall
    return [
        row.label,
        percent(overall.score),
        percent(overall.chance),
        percent(overall.retention),
        percent(overall.corrected),
        interval(overall.corrected_interval),
        "–" if row.label == comparison.reference else p_value(overall.p_holm),
        *(percent(row.cells[task].score) for task in comparison.tasks),
        *(amount(row.cost.get(name), factor) for name, _, factor in COSTS),
        dropped(row),
    ]


def values(comparison: Comparison, row: Row) -> list[float | str]:
    """What each cell is sorted by, dropped layers by their number; not a number where there is none."""
    overall = row.overall
    same = row.label == comparison.reference
    return [
        row.label,
        *(overall.score, overall.chance, overall.retention, overall.corrected),
        overall.corrected_interval.low,
        float("nan") if same else overall.p_holm,
        *(row.cells[task].score for task in comparison.tasks),
        *(row.cost.get(name, float("nan")) for name, _, _ in COSTS),
        round(row.sparsity, 6),
    ]


def caption(comparison: Comparison) -> str:
    first = comparison.rows[0]
    tasks = ", ".join(
        f"{task} ({metric}, {comparison.units[task]} units, chance {percent(first.cells[task].chance)})"
        for task, metric in comparison.tasks.items()
    )
    notes = "".join(f" {note}" for note in comparison.notes)
    return (
        f"Scores in percent; overall is the mean of the tasks: {tasks}. "
        "Retention: score / dense score; chance-corrected: (score - chance) / (dense - chance), with its "
        f"95 % interval from a paired bootstrap over units ({comparison.rounds} rounds). p: paired sign-flip "
        f"test against {comparison.reference}, Holm-corrected over the runs. Memory: peak while answering, "
        f"of the GPU if there is one, else of the whole process.{notes}"
    )
