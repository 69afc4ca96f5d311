"""The charts of a report that show layers: which ones each plan drops, and by what scores."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import numpy as np

from lmms_topoprune.plan import PruningPlan, format_layers
from lmms_topoprune.report import svg
from lmms_topoprune.report.charts import legend_of
from lmms_topoprune.report.leaderboard import folded
from lmms_topoprune.results.labels import variant

Plans = Sequence[tuple[str, PruningPlan]]


def layer_strips(plans: Plans) -> str:
    """One row a run, one square a layer; dropped layers are filled."""
    if not plans:
        return ""
    numbers = [
        [label, format_layers(plan.dropped), f"{len(plan.dropped)} of {plan.layers}"] for label, plan in plans
    ]
    return svg.both(lambda width: _strips(plans, width)) + folded(
        "Numbers of this chart", ["run", "dropped layers", "how many"], numbers
    )


def _strips(plans: Plans, width: int) -> str:
    """Labels stand beside the squares on a wide screen, above them on a narrow one."""
    layers, wide = max(plan.layers for _, plan in plans), width > svg.NARROW
    left = min(260, 12 + 6.5 * max(len(label) for label, _ in plans)) if wide else 4
    size = min(20.0, (width - left - 8) / layers)
    row, above = (min(size, 15) + 3, 0) if wide else (min(size, 12) + 20, 15)
    step = next(s for s in (2, 4, 5, 10, 20, 50) if s * size >= 18)
    parts = [
        f'<text class="small" x="{left + (i + 0.5) * size:.1f}" y="11" text-anchor="middle">{i}</text>'
        for i in range(0, layers, step)
    ]
    for line, (label, plan) in enumerate(plans):
        y = 18 + line * row
        at = (
            f'x="{left - 8:.1f}" y="{y + 11:.1f}" text-anchor="end"'
            if wide
            else f'x="{left}" y="{y + 11:.1f}"'
        )
        parts.append(f"<text {at}>{html.escape(label)}</text>")
        parts.append(_strip(plan, left, y + above, size, row - above - 3))
    said = "Dropped layers of every run are filled; they are listed in the table below."
    return svg.image("Dropped layers", said, width, 22 + len(plans) * row, parts)


def _strip(plan: PruningPlan, left: float, y: float, size: float, height: float) -> str:
    parts = []
    for layer in range(plan.layers):
        state = "dropped" if layer in plan.dropped else "kept"
        place = (
            f'x="{left + layer * size + 0.5:.1f}" y="{y:.1f}" width="{size - 1:.1f}" height="{height:.1f}"'
        )
        parts.append(f'<rect class="{state}" {place}/>')
    return "".join(parts)


def score_curves(plans: Plans, names: Mapping[str, int]) -> str:
    """Each criterion's scores over the layers, scaled to 0..1; the higher, the earlier dropped."""
    curves: dict[str, np.ndarray] = {}
    for _, plan in sorted(plans, key=lambda entry: variant(entry[1])):
        if plan.scores is not None and len(set(plan.scores)) > 1:
            curves.setdefault(variant(plan), np.array(plan.scores))
    if not curves:
        return ""
    layers = max(map(len, curves.values()))
    numbers = [
        [str(layer), *(f"{v[layer]:.4g}" if layer < len(v) else "–" for v in curves.values())]
        for layer in range(layers)
    ]
    return (
        svg.both(lambda width: _curves(curves, names, width))
        + legend_of(names, set(curves))
        + folded("Scores as the criteria gave them", ["layer", *curves], numbers)
    )


def _curves(curves: Mapping[str, np.ndarray], names: Mapping[str, int], width: int) -> str:
    layers = max(map(len, curves.values()))
    chart = svg.Chart(
        "Layer scores",
        "Scores by which each criterion ranks the layers, scaled to 0..1; the higher, the earlier a layer is "
        "dropped. The numbers are in the table below.",
        "layer",
        "score (scaled)",
        (-0.5, layers - 0.5),
        (-0.05, 1.05),
        width,
    )
    for criterion, values in curves.items():
        number = names[criterion]
        scaled = (values - values.min()) / (values.max() - values.min())
        with chart.series(number):
            chart.line([(i, float(v)) for i, v in enumerate(scaled)], svg.stroke(number))
            for i, v in enumerate(scaled):
                chart.mark(i, float(v), number, f"{criterion}, layer {i}: {values[i]:.4g}")
    return chart.render()
