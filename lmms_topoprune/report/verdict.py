"""The verdict: how much each criterion may drop, in words and as a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lmms_topoprune.comparison.columns import percent
from lmms_topoprune.comparison.side_by_side import Comparison
from lmms_topoprune.report.groups import Group, by_criterion, together
from lmms_topoprune.report.render import Table
from lmms_topoprune.report.speed import Speed
from lmms_topoprune.results.reading import Run

TOLERANCE = 0.05
"""Share of the quality over chance that may be lost."""
FLOOR = "random"
"""The criterion that the others have to beat."""


@dataclass(frozen=True)
class Reach:
    """How far a criterion goes: its largest group within the tolerance, if any, and the smallest tested."""

    criterion: str
    largest: Group | None
    smallest: Group

    @property
    def order(self) -> tuple[float, float]:
        """What the best comes first by: layers dropped, then quality kept."""
        if self.largest is None:
            return (0.0, -self.smallest.kept)
        return (-self.largest.sparsity, -self.largest.kept)


def within(group: Group, tolerance: float) -> bool:
    """Whether the whole interval stays above what the tolerance asks for."""
    return group.interval.low >= 1 - tolerance


def reaches(groups: Sequence[Group], tolerance: float) -> list[Reach]:
    """Every criterion, the one that goes furthest first.

    A sparsity counts if the interval stays above the tolerance there and at every smaller one tested: one
    lucky draw behind a failure is not a limit.
    """
    found = []
    for criterion, own in by_criterion(groups).items():
        largest = None
        for group in own:
            if not within(group, tolerance):
                break
            largest = group
        found.append(Reach(criterion, largest, own[0]))
    return sorted(found, key=lambda reach: (reach.order, reach.criterion))


def kept_text(group: Group | None) -> str:
    """Quality kept with its interval, in whole percent."""
    if group is None:
        return "–"
    ends = group.interval
    ranged = f" ({percent(ends.low, 0)} to {percent(ends.high, 0)})" if math.isfinite(ends.low) else ""
    return f"{percent(group.kept, 0)}{ranged}"


def is_floor(criterion: str) -> bool:
    return criterion.split(" ")[0] == FLOOR


def sentence(
    comparison: Comparison,
    found: Sequence[Reach],
    speed: Mapping[str, Speed],
    size: Mapping[str, float],
    tolerance: float,
) -> str:
    """What a reader in a hurry needs, in words."""
    count, tasks = sum(max(len(row.runs), 1) for row in together(comparison)), len(comparison.tasks)
    counted = f"{count} runs on {tasks} task{'s' if tasks > 1 else ''}"
    if not found:
        return f"{counted}; none of them is pruned."
    asked = f"at most {percent(tolerance, 0)} % of the quality over chance lost (95 % interval)"
    ruled = [reach for reach in found if not is_floor(reach.criterion)] or list(found)
    best = ruled[0]
    if best.largest is None:
        return f"{counted}. No criterion stays within the tolerance, {asked}, at any sparsity tested."
    group = best.largest
    gains = [f"keeps {kept_text(group)} %"]
    if group.name in speed:
        gains.append(f"is {speed[group.name]} as fast as dense")
    if group.name in size:
        gains.append(f"has {percent(size[group.name], 0)} % of the parameters")
    equal = [r.criterion for r in ruled[1:] if r.largest and r.largest.dropped == group.dropped]
    return (
        f"{counted}. With {asked}, {best.criterion} goes furthest: it drops {group.dropped} layers "
        f"({percent(group.sparsity, 0)} %), {_listed(gains)}."
        f"{f' As far: {_listed(equal)}.' if equal else ''}{_floor(found, group)}"
    )


def _floor(found: Sequence[Reach], best: Group) -> str:
    """What random layers come to; where they go as far, the tasks do not tell criteria apart."""
    random = next((reach for reach in found if is_floor(reach.criterion)), None)
    if random is None or is_floor(best.criterion):
        return ""
    if random.largest is None:
        return " Random layers never stay within it."
    if random.largest.dropped >= best.dropped:
        return " Random layers go as far: at this tolerance these tasks do not tell a criterion from chance."
    return f" Random layers stay within it up to {random.largest.dropped}."


def _listed(parts: Sequence[str]) -> str:
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last


def sizes(groups: Sequence[Group], runs: Sequence[Run]) -> dict[str, float]:
    """Group -> its share of the dense model's parameters, where both are known."""
    dense = next((run.cost.get("parameters") for run in runs if run.is_dense), None)
    cost = {run.label: run.cost.get("parameters") for run in runs}
    known = {group.name: cost.get(next(iter(group.runs), "")) for group in groups}
    return {name: own / dense for name, own in known.items() if own and dense}


def heads(tolerance: float) -> list[str]:
    return [
        "criterion",
        f"drops, with {percent(1 - tolerance, 0)} % kept",
        "kept over chance, %",
        "speed-up",
        "parameters",
    ]


def verdict_table(
    found: Sequence[Reach], speed: Mapping[str, Speed], size: Mapping[str, float], tolerance: float
) -> Table:
    """A line for each criterion."""
    rows = []
    for reach in found:
        group = reach.largest
        if group is None:
            least = reach.smallest
            rows.append([reach.criterion, f"not even {least.dropped} layers", kept_text(least), "–", "–"])
            continue
        share = f"{percent(size[group.name], 0)} %" if group.name in size else "–"
        rows.append(
            [
                reach.criterion,
                f"{group.dropped} layers ({percent(group.sparsity, 0)} %)",
                kept_text(group),
                str(speed.get(group.name, "–")),
                share,
            ]
        )
    return Table("How far each criterion goes", heads(tolerance), rows)
