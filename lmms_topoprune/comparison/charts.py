"""The charts of a report, each an SVG image made from a comparison and the plans behind it."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from lmms_topoprune.comparison import svg
from lmms_topoprune.comparison.compare import Comparison, Row
from lmms_topoprune.comparison.tables import interval, percent
from lmms_topoprune.plan import PruningPlan


def pruned(comparison: Comparison) -> list[Row]:
    return [row for row in comparison.rows if row.criterion != "dense"]


def criteria(comparison: Comparison) -> list[str]:
    return sorted({row.criterion for row in pruned(comparison)})


def _bounds(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or 1.0
    return low - margin, high + margin


def retention_chart(comparison: Comparison) -> str:
    """Chance-corrected retention against sparsity: a line through each criterion's mean over seeds."""
    rows = [row for row in pruned(comparison) if math.isfinite(row.overall.corrected)]
    if not rows:
        return ""
    ends = [
        100 * v
        for row in rows
        for v in (row.overall.corrected_interval.low, row.overall.corrected_interval.high)
    ]
    values = (
        [100 * row.overall.corrected for row in rows] + [v for v in ends if math.isfinite(v)] + [0.0, 100.0]
    )
    sparsities = sorted({round(100 * row.sparsity, 1) for row in rows})
    chart = svg.Chart(
        "Retention against sparsity",
        "Chance-corrected retention of each criterion; bars are 95 % intervals. The table has the numbers.",
        "layers dropped (%)",
        "kept over chance (%)",
        (min(0.0, *sparsities), max(sparsities) + 5),
        _bounds([max(-50.0, min(v, 150.0)) for v in values]),
    )
    chart.rule(100, "dense")
    chart.rule(0, "chance")
    for series, criterion in enumerate(criteria(comparison)):
        own = [row for row in rows if row.criterion == criterion]
        means = {
            s: np.mean([r.overall.corrected for r in own if r.sparsity == s])
            for s in sorted({r.sparsity for r in own})
        }
        chart.line([(0.0, 100.0), *((100 * s, float(100 * m)) for s, m in means.items())], series)
        for row in own:
            # A small shift keeps the bars of different criteria apart.
            x = 100 * row.sparsity + 0.25 * (series - len(criteria(comparison)) / 2)
            cell = row.overall
            if math.isfinite(cell.corrected_interval.low):
                chart.bar(x, 100 * cell.corrected_interval.low, 100 * cell.corrected_interval.high, series)
            note = f"{row.label}: {percent(cell.corrected)} % ({interval(cell.corrected_interval)})"
            chart.mark(x, 100 * cell.corrected, series, note)
    return chart.render() + svg.legend(criteria(comparison))


def pareto_chart(comparison: Comparison) -> str:
    """Overall score against generation speed; empty where no speed was recorded."""
    rows = [row for row in comparison.rows if row.cost.get("tokens_per_second")]
    if len(rows) < 2:
        return ""
    speeds = [row.cost["tokens_per_second"] for row in rows]
    chart = svg.Chart(
        "Quality against speed",
        "Overall score of every run against generated tokens a second; up and to the right is better.",
        "tokens a second",
        "overall score (%)",
        _bounds(speeds),
        _bounds([100 * row.overall.score for row in rows]),
    )
    names = [*criteria(comparison), "dense"]  # the same marks as in the other charts
    front = sorted((r for r in rows if not any(_dominates(o, r) for o in rows)), key=_speed)
    chart.body.append('<g class="front">')
    chart.line([(_speed(row), 100 * row.overall.score) for row in front], 7)
    chart.body.append("</g>")
    for row in rows:
        note = f"{row.label}: {percent(row.overall.score)} %, {_speed(row):.0f} tokens a second"
        chart.mark(_speed(row), 100 * row.overall.score, names.index(row.criterion), note)
    return chart.render() + svg.legend(names)


def _speed(row: Row) -> float:
    return row.cost["tokens_per_second"]


def _dominates(a: Row, b: Row) -> bool:
    better = (_speed(a), a.overall.score), (_speed(b), b.overall.score)
    return a is not b and all(x >= y for x, y in zip(*better, strict=True)) and better[0] != better[1]


def layer_strips(plans: Sequence[tuple[str, PruningPlan]]) -> str:
    """One row a run, one square a layer; dropped layers are filled."""
    if not plans:
        return ""
    size, left, layers = 16, 190, max(plan.layers for _, plan in plans)
    parts = [
        f'<text class="small" x="{left + (i + 0.5) * size}" y="12" text-anchor="middle">{i}</text>'
        for i in range(0, layers, 2)
    ]
    for line, (label, plan) in enumerate(plans):
        y = 18 + line * (size + 3)
        parts.append(f'<text x="{left - 8}" y="{y + 12}" text-anchor="end">{html.escape(label)}</text>')
        for layer in range(plan.layers):
            state = "dropped" if layer in plan.dropped else "kept"
            place = f'x="{left + layer * size + 1}" y="{y}" width="{size - 2}" height="{size}"'
            parts.append(
                f'<rect class="{state}" {place}>'
                f"<title>{html.escape(label)}: layer {layer} {state}</title></rect>"
            )
    height = 24 + len(plans) * (size + 3)
    said = "; ".join(f"{label}: {', '.join(map(str, plan.dropped)) or 'none'}" for label, plan in plans)
    return svg.figure("Dropped layers", said, left + layers * size + 8, height, parts)


def score_curves(plans: Sequence[tuple[str, PruningPlan]]) -> str:
    """Each criterion's scores over the layers, scaled to 0..1; the higher, the earlier dropped."""
    curves: dict[str, Any] = {}
    for _, plan in sorted(plans, key=lambda entry: entry[1].criterion):
        if plan.scores is not None and len(set(plan.scores)) > 1:
            curves.setdefault(plan.criterion, np.array(plan.scores))
    if not curves:
        return ""
    layers = max(len(values) for values in curves.values())
    chart = svg.Chart(
        "Layer scores",
        "Scores by which each criterion ranks the layers, scaled to 0..1.",
        "layer",
        "score (scaled)",
        (-0.5, layers - 0.5),
        (-0.05, 1.05),
    )
    for series, (criterion, values) in enumerate(curves.items()):
        scaled = (values - values.min()) / (values.max() - values.min())
        chart.line([(i, float(v)) for i, v in enumerate(scaled)], series)
        for i, v in enumerate(scaled):
            chart.mark(i, float(v), series, f"{criterion}, layer {i}: {values[i]:.4g}")
    return chart.render() + svg.legend(list(curves))


def heat_map(criterion: str, similarity: Sequence[Sequence[float]]) -> str:
    """How much of state i is still there at state j, for a criterion that compares pairs of states."""
    states, size, left = len(similarity), 14, 34
    parts = [
        f'<rect class="heat" x="{left + j * size}" y="{18 + i * size}" width="{size}" height="{size}" '
        f'fill-opacity="{max(0.0, min(1.0, value)):.2f}"><title>{i}, {j}: {value:.2f}</title></rect>'
        for i, row in enumerate(similarity)
        for j, value in enumerate(row)
    ]
    for i in range(0, states, 4):
        middle = (i + 0.5) * size
        parts.append(f'<text class="small" x="{left + middle}" y="12" text-anchor="middle">{i}</text>')
        parts.append(f'<text class="small" x="{left - 6}" y="{22 + middle}" text-anchor="end">{i}</text>')
    next_to = [f"{similarity[i][i + 1]:.2f}" for i in range(states - 1)]
    said = f"Similarity of every state to the next: {', '.join(next_to)}"
    side = states * size
    image = svg.figure(f"State similarity, {criterion}", said, left + side + 4, 22 + side, parts)
    caption = f"{html.escape(criterion)}: state i (down) and state j (across)"
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"
