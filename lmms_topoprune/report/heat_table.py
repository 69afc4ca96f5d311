"""The heat table: quality kept, by criterion and number of dropped layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup

from lmms_topoprune.comparison.columns import percent
from lmms_topoprune.report import svg
from lmms_topoprune.report.groups import Group
from lmms_topoprune.report.layers import LABEL
from lmms_topoprune.report.render import Figure, Table
from lmms_topoprune.report.verdict import Reach, kept_text, within


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
    if within(group, tolerance):
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
