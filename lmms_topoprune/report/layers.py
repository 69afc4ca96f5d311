"""Which layers go, and in what order the criteria would drop them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from scipy.stats import rankdata

from lmms_topoprune.plan import PruningPlan, format_layers
from lmms_topoprune.report import svg
from lmms_topoprune.report.render import Figure, Table
from lmms_topoprune.results.reading import variant

SHADES = 10
LABEL = 6.6
"""Pixels a letter of a label takes."""


@dataclass(frozen=True)
class Strip:
    """What the seeds of one criterion drop at one number of layers.

    Attributes:
        criterion: its variant.
        dropped: number of layers.
        layers: number of layers of the dense model.
        shares: (layers,) share of the seeds that drop each layer.
        seeds: how many there are.
        first: the layers that the first seed drops.
    """

    criterion: str
    dropped: int
    layers: int
    shares: np.ndarray
    seeds: int
    first: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"{self.criterion}, {self.dropped} of {self.layers}"


def strips(plans: Sequence[PruningPlan]) -> list[Strip]:
    """By criterion, then by sparsity."""
    found: dict[tuple[str, int], list[PruningPlan]] = defaultdict(list)
    for plan in plans:
        found[variant(plan), len(plan.dropped)].append(plan)
    return [_strip(*key, own) for key, own in sorted(found.items(), key=lambda entry: entry[0])]


def _strip(criterion: str, dropped: int, plans: Sequence[PruningPlan]) -> Strip:
    layers = max(plan.layers for plan in plans)
    shares = np.mean([[layer in plan.dropped for layer in range(layers)] for plan in plans], axis=0)
    return Strip(criterion, dropped, layers, shares, len(plans), plans[0].dropped)


def strips_figure(found: Sequence[Strip]) -> Figure | None:
    """A row for each criterion and sparsity, a square for each layer, shaded by the share of seeds."""
    if not found:
        return None
    rows = [
        [strip.name, format_layers(np.flatnonzero(strip.shares == 1)), _sometimes(strip), str(strip.seeds)]
        for strip in found
    ]
    name = "Dropped layers"
    caption = "The darker a layer, the more calibration seeds drop it." if _several(found) else ""
    return Figure(
        name,
        svg.both(lambda width: _strips(found, width)),
        Table(name, ["run", "dropped by every seed", "by some (of the seeds)", "seeds"], rows),
        caption,
    )


def _several(found: Sequence[Strip]) -> bool:
    return any(strip.seeds > 1 for strip in found)


def _sometimes(strip: Strip) -> str:
    some = [i for i, share in enumerate(strip.shares) if 0 < share < 1]
    return ", ".join(f"{i} ({strip.shares[i] * strip.seeds:.0f})" for i in some) or "–"


@dataclass(frozen=True)
class Columns:
    """Where the layers are: column i begins at left + i * size."""

    left: float
    size: float
    layers: int

    @classmethod
    def beside(cls, labels: Sequence[str], layers: int, width: int, more: float = 0.0) -> Columns:
        """Labels stand beside the columns on a wide screen, above them on a narrow one."""
        wide = width > svg.NARROW
        left = min(250.0, 12 + LABEL * max(map(len, labels))) + more if wide else 4.0
        return cls(left, min(26.0, (width - left - 6) / layers), layers)

    def x(self, layer: float) -> float:
        return self.left + layer * self.size

    def numbers(self, y: float, count: int | None = None, shift: float = 0.5) -> list[Markup]:
        """Numbers of the layers, as many as have room."""
        step = next(s for s in (1, 2, 4, 5, 10, 20, 50, 100) if s * self.size >= 17)
        count = self.layers if count is None else count
        return [svg.text(self.x(i + shift), y, f"{i}", "middle", "small") for i in range(0, count, step)]

    def squares(self, shares: np.ndarray, y: float, height: float) -> list[Markup]:
        """One square for each layer, filled as far as its share."""
        size, parts = self.size - min(1.0, 0.12 * self.size), []
        for layer, share in enumerate(shares.tolist()):
            css = "dropped" if share == 1 else "dropped some" if share > 0 else "kept"
            opacity = f"{0.2 + 0.6 * share:.2f}" if 0 < share < 1 else None
            if opacity:
                parts.append(svg.rect(self.x(layer), y, size, height, "under"))
            parts.append(svg.rect(self.x(layer), y, size, height, css, fill_opacity=opacity))
        return parts


def _strips(found: Sequence[Strip], width: int) -> Markup:
    wide = width > svg.NARROW
    counts = 34.0 if wide else 0.0
    columns = Columns.beside([strip.criterion for strip in found], found[0].layers, width, counts)
    height, step = (min(columns.size, 15.0), min(columns.size, 15.0) + 3) if wide else (12.0, 32.0)
    parts, y, before = columns.numbers(11), 18.0, ""
    for strip in found:
        new = strip.criterion != before
        y += 7 if new and before else 0
        if wide:
            parts.append(svg.text(columns.left - 8, y + height - 3, f"{strip.dropped}", "end", "small"))
            if new:
                parts.append(svg.text(columns.left - counts - 6, y + height - 3, strip.criterion, "end"))
        else:
            parts.append(svg.text(4, y + 11, strip.name))
        parts += columns.squares(strip.shares, y if wide else y + 16, height)
        y, before = y + step, strip.criterion
    said = "Dropped layers of every run are filled; they are listed in the table below."
    return svg.image("Dropped layers", said, width, y + 4, parts)


def mean_ranks(plans: Sequence[PruningPlan]) -> dict[str, np.ndarray]:
    """Criterion -> (layers,) the place at which each layer goes, 1 first; the mean over its seeds."""
    scored: dict[str, dict[tuple[float, ...], np.ndarray]] = defaultdict(dict)
    for plan in plans:
        if plan.scores is not None and len(set(plan.scores)) > 1:
            scored[variant(plan)][plan.scores] = rankdata([-score for score in plan.scores])
    return {name: np.mean(list(own.values()), axis=0) for name, own in sorted(scored.items())}


def ranks_figure(plans: Sequence[PruningPlan], marked: Mapping[str, Strip]) -> Figure | None:
    """A row for each criterion: the place at which each layer goes; the dropped ones have a dot.

    Args:
        plans: with scores or without.
        marked: criterion -> the strip whose layers have the dots.
    """
    ranks = {name: own for name, own in mean_ranks(plans).items() if name in marked}
    if not ranks:
        return None
    name, layers = "Ranks of the layers", max(map(len, ranks.values()))
    heads = ["layer", *ranks]
    rows = [
        [str(layer), *(f"{own[layer]:g}" if layer < len(own) else "–" for own in ranks.values())]
        for layer in range(layers)
    ]
    told = ", ".join(f"{marked[criterion].dropped} of {criterion}" for criterion in ranks)
    return Figure(
        name,
        svg.both(lambda width: _ranks(ranks, marked, width)),
        Table(name, heads, rows),
        f"1 goes first; means over the seeds. Dots: the layers that go when that many are dropped: {told}. "
        "A rule that drops blocks or paths need not follow the ranks.",
    )


def _ranks(ranks: Mapping[str, np.ndarray], marked: Mapping[str, Strip], width: int) -> Markup:
    wide, layers = width > svg.NARROW, max(map(len, ranks.values()))
    columns = Columns.beside(list(ranks), layers, width)
    height, above = (22.0, 0.0) if wide else (18.0, 16.0)
    parts = columns.numbers(11)
    for line, (criterion, own) in enumerate(ranks.items()):
        y = 18 + line * (height + above + 4) + above
        label = (columns.left - 8, y + 15, criterion, "end") if wide else (4.0, y - 5, criterion)
        parts.append(svg.text(*label))
        parts += _cells(columns, own, y, height)
        dropped = np.flatnonzero(marked[criterion].shares >= 0.5)
        places = [(columns.x(i + 0.5), y + height - 4) for i in dropped.tolist()]
        parts += [svg.element("circle", class_="dot", cx=x, cy=cy, r=2) for x, cy in places]
    bottom = 22 + len(ranks) * (height + above + 4)
    return svg.image("Ranks of the layers", "The darker, the earlier a layer goes.", width, bottom, parts)


def _cells(columns: Columns, ranks: np.ndarray, y: float, height: float) -> list[Markup]:
    size, parts = columns.size - min(1.0, 0.12 * columns.size), []
    for layer, rank in enumerate(ranks.tolist()):
        shade = 0.6 * (1 - (rank - 1) / max(len(ranks) - 1, 1))
        said = f"layer {layer}: place {rank:.3g}"
        parts.append(svg.rect(columns.x(layer), y, size, height, "under"))
        parts.append(svg.rect(columns.x(layer), y, size, height, "heat", said, fill_opacity=f"{shade:.2f}"))
        if columns.size >= 17:
            parts.append(svg.text(columns.x(layer) + size / 2, y + 12, f"{rank:.0f}", "middle", "tiny"))
    return parts
