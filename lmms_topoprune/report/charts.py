"""The charts of a report that show runs, each an SVG image made from a comparison and the plans behind it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from lmms_topoprune.comparison.columns import amount, interval, percent
from lmms_topoprune.comparison.side_by_side import Comparison, Row
from lmms_topoprune.report import svg
from lmms_topoprune.report.leaderboard import folded


def pruned(comparison: Comparison) -> list[Row]:
    return [row for row in comparison.rows if row.criterion != "dense"]


def series(comparison: Comparison) -> dict[str, int]:
    """Criterion -> its number, by which it has the same mark in every chart; dense comes last."""
    names = sorted({row.criterion for row in pruned(comparison)})
    return {name: number for number, name in enumerate([*names, "dense"])}


def legend_of(names: Mapping[str, int], shown: set[str]) -> str:
    """The legend of a chart that shows some of the series."""
    return svg.legend({name: number for name, number in names.items() if name in shown})


def _bounds(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or 1.0
    return low - margin, high + margin


def retention_chart(comparison: Comparison) -> str:
    """Chance-corrected retention against sparsity: a line through each criterion's mean over seeds."""
    rows = [row for row in pruned(comparison) if math.isfinite(row.overall.corrected)]
    if not rows:
        return ""
    names = series(comparison)
    numbers = [
        [
            row.label,
            f"{100 * row.sparsity:.0f} %",
            percent(row.overall.corrected),
            interval(row.overall.corrected_interval),
        ]
        for row in rows
    ]
    return (
        svg.both(lambda width: _retention(rows, names, width))
        + legend_of(names, {row.criterion for row in rows})
        + folded(
            "Numbers of this chart",
            ["run", "layers dropped", "over chance (%)", "95 % interval"],
            numbers,
        )
    )


def _retention(rows: Sequence[Row], names: Mapping[str, int], width: int) -> str:
    ends = [
        e for row in rows for e in (row.overall.corrected_interval.low, row.overall.corrected_interval.high)
    ]
    values = [
        0.0,
        100.0,
        *(100 * v for v in (*ends, *(r.overall.corrected for r in rows)) if math.isfinite(v)),
    ]
    chart = svg.Chart(
        "Retention against sparsity",
        "Chance-corrected retention of every run, a line through the mean of each criterion; bars are 95 % "
        "intervals. The numbers are in the table below.",
        "layers dropped (%)",
        "over chance (%)",
        (0.0, 100 * max(row.sparsity for row in rows) + 4),
        _bounds([max(-50.0, min(v, 150.0)) for v in values]),
        width,
        right=46,
    )
    chart.rule(100, "dense")
    chart.rule(0, "chance")
    shown = sorted({row.criterion for row in rows})
    for place, criterion in enumerate(shown):
        with chart.series(names[criterion]):
            # A small shift keeps the bars of different criteria apart.
            shift = 4.0 * (place + 0.5 - len(shown) / 2) / len(shown)
            _one_criterion(
                chart, [row for row in rows if row.criterion == criterion], names[criterion], shift
            )
    return chart.render()


def _one_criterion(chart: svg.Chart, rows: Sequence[Row], number: int, shift: float) -> None:
    grouped = {
        s: [r.overall.corrected for r in rows if r.sparsity == s] for s in sorted({r.sparsity for r in rows})
    }
    means = [(100 * s, 100 * float(np.mean(values))) for s, values in grouped.items()]
    chart.line([(0.0, 100.0), *((x + shift, y) for x, y in means)], svg.stroke(number))
    for row in rows:
        cell, x = row.overall, 100 * row.sparsity + shift
        if math.isfinite(cell.corrected_interval.low):
            chart.bar(x, 100 * cell.corrected_interval.low, 100 * cell.corrected_interval.high, number)
        note = f"{row.label}: {percent(cell.corrected)} % ({interval(cell.corrected_interval)})"
        chart.mark(x, 100 * cell.corrected, number, note)


def pareto_chart(comparison: Comparison) -> str:
    """Overall score against latency, with the Pareto front; empty where no latency was recorded."""
    rows = [row for row in comparison.rows if "latency_seconds" in row.cost]
    if len(rows) < 2:
        return ""
    names = series(comparison)
    front = sorted((r for r in rows if not any(_dominates(o, r) for o in rows)), key=_latency)
    numbers = [
        [row.label, amount(_latency(row)), percent(row.overall.score), "yes" if row in front else "no"]
        for row in sorted(rows, key=_latency)
    ]
    heads = ["run", "ms an answer", "overall score (%)", "on the Pareto front"]
    return (
        svg.both(lambda width: _pareto(rows, front, names, width))
        + legend_of(names, {row.criterion for row in rows})
        + folded("Numbers of this chart", heads, numbers)
    )


def _pareto(rows: Sequence[Row], front: Sequence[Row], names: Mapping[str, int], width: int) -> str:
    chart = svg.Chart(
        "Quality against latency",
        "Overall score of every run against milliseconds an answer; up and to the left is better. The dotted "
        "line joins the runs that no other run beats in both. The numbers are in the table below.",
        "milliseconds an answer",
        "overall score (%)",
        _bounds([_latency(row) for row in rows]),
        _bounds([100 * row.overall.score for row in rows]),
        width,
    )
    chart.line([(_latency(row), 100 * row.overall.score) for row in front], "front")
    for row in rows:
        note = f"{row.label}: {percent(row.overall.score)} %, {amount(_latency(row))} ms an answer"
        with chart.series(names[row.criterion]):
            chart.mark(_latency(row), 100 * row.overall.score, names[row.criterion], note)
    return chart.render()


def _latency(row: Row) -> float:
    return 1000 * row.cost["latency_seconds"]


def _dominates(a: Row, b: Row) -> bool:
    better = (-_latency(a), a.overall.score), (-_latency(b), b.overall.score)
    return a is not b and all(x >= y for x, y in zip(*better, strict=True)) and better[0] != better[1]
