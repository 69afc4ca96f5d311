"""Quality that is kept against the share of layers that are gone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from markupsafe import Markup

from lmms_topoprune.comparison.columns import interval, percent
from lmms_topoprune.report import svg
from lmms_topoprune.report.groups import Group, by_criterion
from lmms_topoprune.report.render import Figure, Table
from lmms_topoprune.report.svg import Axes, padded

DODGE = 5.0
"""Pixels between the points of two criteria at one sparsity."""
CLEAR = 5
"""Bands that can be told apart; of more they are fainter."""
CUT = (-50.0, 150.0)
"""Percent; what lies outside is drawn at the edge."""
NAME = "Quality against sparsity"
KEPT = "kept over chance (%)"


def retention_figure(groups: Sequence[Group], names: Mapping[str, int]) -> Figure | None:
    """A line with its band for each criterion; a dot plot if there is only one sparsity."""
    shown = [group for group in groups if math.isfinite(group.kept)]
    if not shown:
        return None
    single = len({group.dropped for group in shown}) == 1
    draw = _dots if single else _lines
    rows = [
        [
            group.name,
            f"{100 * group.sparsity:.0f} %",
            percent(group.kept),
            interval(group.interval),
            str(len(group.runs)),
        ]
        for group in shown
    ]
    return Figure(
        NAME,
        svg.both(lambda width: draw(shown, names, width)),
        Table(NAME, ["run", "layers dropped", KEPT, "95 % interval", "seeds"], rows),
        _caption(shown, single),
        {name: names[name] for name in sorted({group.criterion for group in shown})},
    )


def _caption(groups: Sequence[Group], single: bool) -> str:
    seeds = "Small marks are single seeds. " if any(len(group.runs) > 1 for group in groups) else ""
    return seeds + ("" if single else "Criteria are moved apart sideways by a few pixels.")


def _range(groups: Sequence[Group]) -> tuple[float, float]:
    """What is drawn of the y axis: from the lowest interval, or from 0 if that is near."""
    ends = [end for group in groups for end in (group.kept, group.interval.low, group.interval.high)]
    values = [min(max(100 * end, CUT[0]), CUT[1]) for end in ends if math.isfinite(end)]
    low, high = padded([*values, 100.0])
    return (0.0, high) if 0 < low < 0.35 * high else (low, high)


def _lines(groups: Sequence[Group], names: Mapping[str, int], width: int) -> Markup:
    wide = width > svg.NARROW
    longest = max(len(group.criterion) for group in groups)
    axes = Axes(
        NAME,
        "A line through the mean of each criterion over its seeds; the band is its 95 % interval.",
        "layers dropped (%)",
        KEPT,
        (0.0, 100 * max(group.sparsity for group in groups)),
        _range(groups),
        width,
        right=min(46 + 6.6 * longest, 250) if wide else 20,
    )
    axes.rule(100, "dense")
    axes.rule(0, "chance")
    found = by_criterion(groups)
    dodge = _dodge(axes, sorted({100 * group.sparsity for group in groups}), len(found))
    for place, (criterion, own) in enumerate(found.items()):
        with axes.series(names[criterion]):
            _line(axes, own, names[criterion], dodge * (place - (len(found) - 1) / 2), len(found) <= CLEAR)
    if wide:
        last = [(own[-1], criterion) for criterion, own in found.items()]
        axes.labels([((100 * g.sparsity, 100 * g.kept), name, names[name]) for g, name in last])
    return axes.render()


def _dodge(axes: Axes, places: Sequence[float], criteria: int) -> float:
    """Pixels from one criterion to the next, so that together they take half a step of sparsity at most."""
    steps = [axes.x(b) - axes.x(a) for a, b in pairwise([0.0, *places])]
    return min(DODGE, 0.5 * min(steps) / criteria)


def _line(axes: Axes, groups: Sequence[Group], number: int, shift: float, clear: bool) -> None:
    start = [(0.0, 100.0)]
    known = [group for group in groups if math.isfinite(group.interval.low)]
    lows, highs = (
        start + [(100 * g.sparsity, 100 * getattr(g.interval, end)) for g in known] for end in ("low", "high")
    )
    if known:
        axes.band(lows, highs, f"band f{number % svg.COLORS}{'' if clear else ' faint'}", shift)
    axes.line(start + [(100 * g.sparsity, 100 * g.kept) for g in groups], svg.stroke(number), shift)
    for group in groups:
        x = 100 * group.sparsity
        for label, kept in _seeds(group).items():
            axes.mark(x, 100 * kept, number, f"{label}: {percent(kept)} %", (shift, 0.0), 2.5)
        axes.mark(x, 100 * group.kept, number, _said(group), (shift, 0.0))


def _dots(groups: Sequence[Group], names: Mapping[str, int], width: int) -> Markup:
    """One sparsity: a row for each criterion, the best first."""
    order = sorted(groups, key=lambda group: group.kept)
    low, high = _range(groups)
    wide, longest = width > svg.NARROW, max(len(group.criterion) for group in groups)
    named = [(float(i), group.criterion) for i, group in enumerate(order)]
    axes = Axes(
        NAME,
        f"Every criterion with {order[0].dropped} layers dropped; bars are 95 % intervals.",
        KEPT,
        "",
        (low, high),
        (-0.7, len(order) - 0.3),
        width,
        left=min(14 + 6.6 * longest, 240 if wide else 150),
        height=64 + 26 * len(order),
        y_named=named,
    )
    axes.body.append(svg.line(axes.x(100), axes.top, axes.x(100), axes.floor, "rule"))
    for i, group in enumerate(order):
        number = names[group.criterion]
        with axes.series(number):
            ends = group.interval
            if math.isfinite(ends.low):
                axes.interval((100 * ends.low, 100 * ends.high), (i, i), svg.stroke(number))
            for label, kept in _seeds(group).items():
                axes.mark(100 * kept, i, number, f"{label}: {percent(kept)} %", (0.0, DODGE), 2.5)
            axes.mark(100 * group.kept, i, number, _said(group))
    return axes.render()


def _seeds(group: Group) -> Mapping[str, float]:
    return group.runs if len(group.runs) > 1 else {}


def _said(group: Group) -> str:
    return f"{group.name}: {percent(group.kept)} % ({interval(group.interval)})"
