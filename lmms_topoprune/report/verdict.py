"""The verdict: how much each criterion may drop, in words and as a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from lmms_topoprune import registry
from lmms_topoprune.comparison.columns import percent
from lmms_topoprune.comparison.paired import within
from lmms_topoprune.comparison.side_by_side import Comparison
from lmms_topoprune.report import svg
from lmms_topoprune.report.groups import Group, by_criterion, together
from lmms_topoprune.report.layers import LABEL
from lmms_topoprune.report.render import Figure, Table
from lmms_topoprune.report.speed import Speed
from lmms_topoprune.results.reading import Run


def heat_figure(groups: Sequence[Group], found: Sequence[Reach], tolerance: float) -> Figure | None:
    """Criterion x sparsity: quality kept, as color and number; what is within the tolerance is framed."""
    if not groups:
        return None
    counts = sorted({group.dropped for group in groups})
    shares = {group.dropped: group.sparsity for group in groups}
    order = [reach.criterion for reach in found]
    cells = {(group.criterion, group.dropped): group for group in groups}
    name = "Quality kept, by criterion and layers dropped"
    rows = [
        [criterion, *(kept_text(cells.get((criterion, count))) for count in counts)] for criterion in order
    ]
    top = [f"{count} ({percent(shares[count], 0)} %)" for count in counts]
    return Figure(
        name,
        svg.both(lambda width: _heat(name, order, [(c, shares[c]) for c in counts], cells, tolerance, width)),
        Table(name, ["criterion", *top], rows),
        f"Percent of the dense model's quality over chance, with its 95 % interval. Framed: the interval "
        f"stays above {percent(1 - tolerance, 0)} %.",
    )


def _heat(
    name: str,
    order: Sequence[str],
    columns: Sequence[tuple[int, float]],
    cells: Mapping[tuple[str, int], Group],
    tolerance: float,
    width: int,
) -> Markup:
    """Labels beside the cells on a wide screen, above them on a narrow one."""
    wide = width > svg.NARROW
    left = min(250.0, 14 + LABEL * max(map(len, order))) if wide else 2.0
    size = min((width - left - 4) / len(columns), 96.0)
    height, above = (38.0, 0.0) if wide else (34.0, 18.0)
    parts = [
        part
        for i, (count, share) in enumerate(columns)
        for part in _head(left + (i + 0.5) * size, count, share, size)
    ]
    for line, criterion in enumerate(order):
        y = 36 + line * (height + above) + above
        label = (left - 8, y + height / 2 + 4, criterion, "end") if wide else (left, y - 5, criterion)
        parts.append(svg.text(*label))
        for i, (count, _) in enumerate(columns):
            parts += _cell(cells.get((criterion, count)), left + i * size, y, size, height, tolerance)
    said = "Rows are criteria, columns numbers of dropped layers; the numbers are in the table below."
    return svg.image(name, said, width, 40 + len(order) * (height + above), parts)


def _head(x: float, count: int, share: float, size: float) -> list[Markup]:
    layers = f"{count} layers" if size >= 60 else f"{count}"
    return [
        svg.text(x, 14, f"{percent(share, 0)} %", "middle"),
        svg.text(x, 28, layers, "middle", "small"),
    ]


def _cell(
    group: Group | None, x: float, y: float, size: float, height: float, tolerance: float
) -> list[Markup]:
    place = (x + 1, y + 1, size - 2, height - 2)
    if group is None or not math.isfinite(group.kept):
        return [svg.rect(*place, "kept")]
    shade = 0.6 * float(np.clip(group.kept, 0, 1)) ** 2
    parts = [
        svg.rect(*place, "under"),
        svg.rect(*place, "heat", f"{group.name}: {kept_text(group)} %", fill_opacity=f"{shade:.2f}"),
    ]
    if within(group.interval, tolerance):
        parts.append(svg.rect(x + 2.5, y + 2.5, size - 5, height - 5, "outline"))
    ends, middle = group.interval, x + size / 2
    ranged = math.isfinite(ends.low) and size >= 44
    parts.append(
        svg.text(middle, y + height / 2 + (0 if ranged else 4), percent(group.kept, 0), "middle", "strong")
    )
    if ranged:
        said = f"{percent(ends.low, 0)} to {percent(ends.high, 0)}"
        parts.append(svg.text(middle, y + height - 7, said, "middle", "range"))
    return parts


TOLERANCE = 0.05
"""Share of the quality over chance that may be lost."""
FLOOR = "random"
"""The criterion that the others have to beat."""


def is_blind(criterion: str) -> bool:
    """Whether it looks at no model; of equal ones another one is named."""
    found = registry.by_plain_name(criterion.split(" ")[0])
    return found is not None and not found.needs_samples


@dataclass(frozen=True)
class Reach:
    """How far a criterion goes: its largest group within the tolerance, if any, and the smallest tested."""

    criterion: str
    largest: Group | None
    smallest: Group

    @property
    def order(self) -> tuple[float, bool, float]:
        """What the best comes first by: layers dropped, whether it looks at the model, quality kept."""
        blind = is_blind(self.criterion)
        if self.largest is None:
            return (0.0, blind, -self.smallest.kept)
        return (-self.largest.sparsity, blind, -self.largest.kept)


def reaches(groups: Sequence[Group], tolerance: float) -> list[Reach]:
    """Every criterion, the one that goes furthest first.

    A sparsity counts if the interval stays above the tolerance there and at every smaller one tested: one
    lucky draw behind a failure is not a limit.
    """
    found = []
    for criterion, own in by_criterion(groups).items():
        largest = None
        for group in own:
            if not within(group.interval, tolerance):
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
    """Random layers, but not those that a search began with."""
    name, *changed = criterion.split(" ")
    return name == FLOOR and not any(each.startswith("trials=") for each in changed)


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
    if best.largest is None:  # a blind rule may come closest, too
        fewest = min(reach.smallest.dropped for reach in ruled)
        best = max(
            (r for r in ruled if r.smallest.dropped == fewest), key=lambda r: (r.smallest.kept, r.criterion)
        )
    group = best.largest or best.smallest
    gains = [f"keeps {kept_text(group)} %"]
    if group.name in speed:
        gains.append(f"is {speed[group.name]} as fast as dense")
    if group.name in size:
        gains.append(f"has {percent(size[group.name], 0)} % of the parameters")
    if best.largest is None:
        none = f"{counted}. No criterion stays within the tolerance, {asked}, at any sparsity tested."
        if not math.isfinite(group.kept):  # the dense model only guesses
            return none
        floors = [r.smallest for r in found if is_floor(r.criterion) and r.smallest.dropped == group.dropped]
        floor = f" Random layers keep {kept_text(floors[0])} %." if floors else ""
        return (
            f"{none} Closest comes {best.criterion} without {group.dropped} layer{'s' * (group.dropped > 1)} "
            f"({percent(group.sparsity, 0)} %): it {_listed(gains)}.{floor}"
        )
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
