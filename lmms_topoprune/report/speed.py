"""Quality that is kept against the speed that is won, with what repeated timings say about noise."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup
from scipy import stats

from lmms_topoprune.comparison.columns import interval, percent
from lmms_topoprune.comparison.statistics import Interval
from lmms_topoprune.report import svg
from lmms_topoprune.report.groups import Group, by_criterion
from lmms_topoprune.report.render import Figure, Table
from lmms_topoprune.report.svg import Axes, padded
from lmms_topoprune.results.reading import Run

NAME = "Quality against speed"
COST = "latency_seconds"


@dataclass(frozen=True)
class Speed:
    """How many times as fast as the dense model; the interval is not a number without repeated timings."""

    value: float
    interval: Interval

    def __str__(self) -> str:
        if not math.isfinite(self.interval.low):
            return f"{self.value:.2f}×"
        return f"{self.value:.2f}× ({self.interval.low:.2f} to {self.interval.high:.2f})"


def speeds(groups: Sequence[Group], runs: Sequence[Run]) -> dict[str, Speed]:
    """Group -> its speed-up, where it and a dense run were timed.

    Runs that drop as many layers do the same work, so they time it repeatedly: the spread of the logarithm
    of their latency, pooled over the numbers of layers, is the noise of one timing. Student's interval.
    """
    # Number of layers -> results file -> log latency; cells of a sweep share evaluations.
    timed: dict[int, dict[Path, float]] = defaultdict(dict)
    for run in runs:
        if COST in run.cost:
            timed[_layers(run)][run.path] = math.log(run.cost[COST])
    reach = _reach([list(own.values()) for own in timed.values()])
    dense, found = list(timed[0].values()), {}
    for group in groups:
        places = {run.path: _layers(run) for run in runs if run.label in group.runs}
        own = [timed[count][path] for path, count in places.items() if path in timed[count]]
        if own and dense:
            log, error = np.mean(dense) - np.mean(own), reach * math.sqrt(1 / len(own) + 1 / len(dense))
            ends = Interval(math.exp(log - error), math.exp(log + error))
            found[group.name] = Speed(math.exp(log), ends)
    return found


def _reach(samples: Sequence[Sequence[float]]) -> float:
    """Half the 95 % interval of one value of log latency, from repeated timings; nan without any."""
    freedom = sum(len(values) - 1 for values in samples if values)
    if not freedom:
        return float("nan")
    squares = sum(float(np.var(values)) * len(values) for values in samples if values)
    return float(stats.t.ppf(0.975, freedom)) * math.sqrt(squares / freedom)


def _layers(run: Run) -> int:
    return 0 if run.plan is None else len(run.plan.dropped)


def speed_figure(
    groups: Sequence[Group], found: Mapping[str, Speed], names: Mapping[str, int]
) -> Figure | None:
    """Every group with intervals of both; None where nothing was timed."""
    shown = [group for group in groups if group.name in found and math.isfinite(group.kept)]
    if not shown:
        return None
    rows = [[g.name, str(found[g.name]), percent(g.kept), interval(g.interval)] for g in shown]
    repeated = any(math.isfinite(found[group.name].interval.low) for group in shown)
    noise = (
        "Runs that drop as many layers time the same work; their spread gives the intervals of speed. "
        if repeated
        else "Nothing was timed twice: differences of speed may be noise. "
    )
    return Figure(
        NAME,
        svg.both(lambda width: _scatter(shown, found, names, width)),
        Table(NAME, ["run", "speed-up", "kept over chance (%)", "95 % interval"], rows),
        f"{noise}Pale: beaten by another run in both, beyond both intervals.",
        {name: names[name] for name in sorted({group.criterion for group in shown})},
    )


def beaten(group: Group, others: Sequence[Group], found: Mapping[str, Speed]) -> bool:
    """Whether another group is better in both by more than noise."""
    return any(
        other.interval.low > group.interval.high
        and found[other.name].interval.low > found[group.name].interval.high
        for other in others
    )


def _scatter(
    groups: Sequence[Group], found: Mapping[str, Speed], names: Mapping[str, int], width: int
) -> Markup:
    ends = [e for g in groups for e in (found[g.name].interval.low, found[g.name].interval.high)]
    xs = [1.0, *(found[g.name].value for g in groups), *filter(math.isfinite, ends)]
    ys = [100.0, *(100 * v for g in groups for v in (g.kept, g.interval.low, g.interval.high))]
    axes = Axes(
        NAME,
        "Quality kept over chance against how many times as fast a run is; up and to the right is better. "
        "Bars are 95 % intervals of both.",
        "times as fast as dense",
        "kept over chance (%)",
        padded(xs, 0.04),
        _from_zero(padded([min(max(y, -50.0), 150.0) for y in ys if math.isfinite(y)])),
        width,
        unit="×",
    )
    axes.rule(100, "dense")
    axes.body.append(svg.line(axes.x(1), axes.top, axes.x(1), axes.floor, "rule"))
    for criterion, own in by_criterion(groups).items():
        with axes.series(names[criterion]):
            axes.line(
                [(found[g.name].value, 100 * g.kept) for g in own], f"{svg.stroke(names[criterion])} thin"
            )
            for group in own:
                _cross(axes, group, found[group.name], names[criterion], beaten(group, groups, found))
    return axes.render()


def _from_zero(values: tuple[float, float]) -> tuple[float, float]:
    low, high = values
    return (0.0, high) if 0 < low < 0.35 * high else values


def _cross(axes: Axes, group: Group, speed: Speed, number: int, is_beaten: bool) -> None:
    start, x, y = len(axes.body), speed.value, 100 * group.kept
    css, ends = f"{svg.stroke(number)} thin", group.interval
    if math.isfinite(ends.low):
        axes.interval((x, x), (100 * ends.low, 100 * ends.high), css)
    if math.isfinite(speed.interval.low):
        axes.interval((speed.interval.low, speed.interval.high), (y, y), css)
    axes.mark(x, y, number, f"{group.name}: {percent(group.kept)} % ({interval(ends)}), {speed}")
    if is_beaten:
        axes.body[start:] = [svg.element("g", *axes.body[start:], class_="pale")]
