"""What the zigzag saw of the states: Betti numbers and births beside the layers, and persistence images."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from lmms_topoprune.plan import format_layers, runs
from lmms_topoprune.report import svg
from lmms_topoprune.report.layers import Columns, Strip
from lmms_topoprune.report.render import Figure, Table
from lmms_topoprune.results.similarity import Shape
from lmms_topoprune.topology import Barcode, betti, effective_persistence_image

SIDE, LEFT, TOP = 350, 44, 30
SHADES = 20
SHAPES = ("pieces (H0)", "loops (H1)")
"""What the bars of a dimension are."""


def similarity_figures(shapes: Mapping[str, Shape], marked: Mapping[str, Strip]) -> list[Figure]:
    """A map of (state, state) for every criterion that compares them; equal maps are drawn once."""
    found: list[tuple[list[str], np.ndarray]] = []
    for criterion, shape in shapes.items():
        if shape.similarity is None:
            continue
        values = np.array(shape.similarity)
        drops = marked[criterion].first if criterion in marked else ()
        same = next(
            (n for n, v in found if np.array_equal(v, values) and _drops(marked, n[0]) == drops), None
        )
        if same is None:
            found.append(([criterion], values))
        else:
            same.append(criterion)
    return [_figure(", ".join(names), values, marked.get(names[0])) for names, values in found]


def _drops(marked: Mapping[str, Strip], criterion: str) -> tuple[int, ...]:
    return marked[criterion].first if criterion in marked else ()


def _figure(criterion: str, values: np.ndarray, strip: Strip | None) -> Figure:
    name = f"State similarity, {criterion}"
    outlined = (
        ""
        if strip is None
        else (f" Outlined: the states on both sides of the layers dropped, {format_layers(strip.first)}.")
    )
    return Figure(
        name,
        [_map(name, values, () if strip is None else strip.first)],
        Table(
            name,
            ["state", *map(str, range(len(values)))],
            [[str(i), *(f"{v:.3f}" for v in row)] for i, row in enumerate(values)],
        ),
        f"State i (down) and state j (across); the stronger the color, the more alike.{outlined}",
    )


def _map(name: str, values: np.ndarray, dropped: Sequence[int]) -> Markup:
    size = SIDE / len(values)
    shaded = {(j, i): float(value) for (i, j), value in np.ndenumerate(values)}
    parts = [*shades(shaded, size), *numbered(len(values), size)]
    for run in runs(dropped):
        if run.stop < len(values):
            # Dropping these layers joins the states before and after them.
            place, side = run.start * size, (len(run) + 1) * size
            parts.append(svg.rect(LEFT + place, TOP + place, side, side, "outline"))
    said = "State i downward, state j across; the stronger the color, the more alike."
    parts += [*scale("0", "1"), *axis_names("state j", "state i")]
    return svg.image(name, said, SIDE + LEFT + 10, SIDE + TOP + 38, parts)


def shades(shaded: Mapping[tuple[int, int], float], size: float) -> list[Markup]:
    """(column, row) -> shade in 0..1, as one path a shade."""
    levels: dict[int, list[svg.Point]] = defaultdict(list)
    for (column, row), value in shaded.items():
        level = math.ceil(SHADES * min(max(value, 0.0), 1.0))
        levels[level].append((round(LEFT + column * size, 2), round(TOP + row * size, 2)))
    frame = svg.rect(LEFT, TOP, SIDE, SIDE, "kept")
    side = round(size, 2)
    shown = sorted(level for level in levels if level > 0)
    return [frame, *(svg.squares(levels[n], side, side, "heat", n / SHADES) for n in shown)]


def numbered(count: int, size: float, upward: bool = False) -> list[Markup]:
    """Numbers of the columns above, of the rows to the left."""
    step = next(s for s in (2, 4, 5, 10, 20, 50, 100) if s * size >= 22)
    parts = []
    for i in range(0, count, step):
        row = (count - 1 - i if upward else i) + 0.5
        parts.append(svg.text(LEFT + (i + 0.5) * size, TOP - 5, f"{i}", "middle", "small"))
        parts.append(svg.text(LEFT - 5, TOP + row * size + 3.5, f"{i}", "end", "small"))
    return parts


def axis_names(across: str, down: str) -> list[Markup]:
    middle = TOP + SIDE / 2
    turned = {"transform": f"rotate(-90 11 {middle:.0f})", "text_anchor": "middle", "class_": "small"}
    return [
        svg.text(LEFT + SIDE / 2, 11, across, "middle", "small"),
        svg.element("text", down, x=11, y=middle, **turned),
    ]


def scale(low: str, high: str, start: float = 0.0) -> list[Markup]:
    """What the shades from `start` to 1 mean."""
    y, steps, left = TOP + SIDE + 14, 10, LEFT + 90
    parts = [
        svg.squares([(left + 12 * i, y)], 12, 12, "heat", shade)
        for i, shade in enumerate(np.linspace(start, 1, steps).tolist())
    ]
    parts.append(svg.text(left - 6, y + 10, low, "end", "small"))
    parts.append(svg.text(left + 6 + 12 * steps, y + 10, high, None, "small"))
    return parts


PROFILE = 54.0
"""Height of a row of columns in pixels."""


@dataclass(frozen=True)
class Seen:
    """A barcode, its homology dimension, and the criteria that read it."""

    criteria: tuple[str, ...]
    k: int
    barcode: Barcode
    dimension: int

    @property
    def name(self) -> str:
        return f"{', '.join(self.criteria)} (k = {self.k})"


def barcodes(shapes: Mapping[str, Shape]) -> list[Seen]:
    """The distinct barcodes behind the criteria."""
    found: list[tuple[list[str], int, Barcode, int]] = []
    for criterion, shape in shapes.items():
        for k, (barcode, dimension) in (shape.barcodes or {}).items():
            same = next((f for f in found if f[1] == k and f[2] == barcode), None)
            if same is None:
                found.append(([criterion], k, barcode, dimension))
            else:
                same[0].append(criterion)
    return [Seen(tuple(names), k, barcode, p) for names, k, barcode, p in found]


def profile_figure(seen: Seen, strips: Sequence[Strip]) -> Figure:
    """Betti number and births at each state, below the layers that the criterion drops."""
    p, name = seen.dimension, f"Topology by layer, {seen.name}"
    image = effective_persistence_image(seen.barcode, p)
    alive, births = betti(seen.barcode, p), image.sum(1)
    rows = [[str(i), str(a), str(b)] for i, (a, b) in enumerate(zip(alive, births, strict=True))]
    own = [strip for strip in strips if strip.criterion == seen.criteria[0]]
    return Figure(
        name,
        svg.both(lambda width: _profile(name, own, {f"β{p}": alive, "births": births}, width)),
        Table(name, ["state", f"Betti number of H{p}", "births"], rows),
        f"{seen.name}: {SHAPES[p]} that each state has (β{p}), and how many of them are new (births). "
        "State i comes before layer i. Above: the layers dropped.",
    )


def _profile(name: str, strips: Sequence[Strip], rows: Mapping[str, np.ndarray], width: int) -> Markup:
    wide = width > svg.NARROW
    states = max(map(len, rows.values()))
    columns = (
        Columns.beside(["10 of 24"], states, width) if wide else Columns(50, (width - 56) / states, states)
    )
    parts, y = columns.numbers(11, states, 0.0), 18.0
    for strip in strips:
        said = f"{strip.dropped} of {strip.layers}" if wide else f"{strip.dropped}"
        parts.append(svg.text(columns.left - 8, y + 10, said, "end", "small"))
        parts += columns.squares(strip.shares, y, 12.0)
        y += 15
    for said, values in rows.items():
        y += 12
        parts += _columns(columns, values, y, said)
        y += PROFILE + 4
    said = "Columns of numbers for every state, under the layers; all are in the table below."
    return svg.image(name, said, width, y + 6, parts)


def _columns(columns: Columns, values: np.ndarray, y: float, said: str) -> list[Markup]:
    """A column for each state, around the border between two layers."""
    most, wide = max(int(values.max()), 1), 0.62 * columns.size
    parts = [
        svg.text(columns.left - wide / 2 - 4, y + PROFILE / 2 + 4, said, "end"),
        svg.text(columns.left - wide / 2 - 4, y + 9, f"{most}", "end", "small"),
        svg.line(columns.left - wide / 2, y + PROFILE, columns.x(len(values) - 0.5), y + PROFILE, "axis"),
    ]
    for state, value in enumerate(values.tolist()):
        height = PROFILE * value / most
        told = f"state {state}: {value} {said}"
        parts.append(
            svg.rect(columns.x(state) - wide / 2, y + PROFILE - height, wide, max(height, 0.1), "bars", told)
        )
    return parts


def persistence_figure(seen: Seen) -> Figure | None:
    """The effective persistence image: bars by the states of birth and death."""
    counts = effective_persistence_image(seen.barcode, seen.dimension)
    born, died = np.nonzero(counts)
    if not len(born):
        return None
    name = f"Persistence image of H{seen.dimension}, {seen.name}"
    rows = [[str(b), str(d), str(counts[b, d])] for b, d in zip(born, died, strict=True)]
    caption = f"{seen.name}: bars of H{seen.dimension} by state of birth (across) and of death (upward)."
    return Figure(
        name,
        [_image(name, counts, seen.barcode.states)],
        Table(f"Bars of {seen.name} by birth and death", ["birth", "death", "bars"], rows),
        caption,
    )


def _image(name: str, counts: np.ndarray, states: int) -> Markup:
    most, size = int(counts.max()), SIDE / (states + 1)
    shaded = {
        (int(b), states - int(d)): math.log1p(counts[b, d]) / math.log1p(most) for b, d in np.argwhere(counts)
    }
    parts = [
        *shades(shaded, size),
        *numbered(states + 1, size, upward=True),
        *scale("1 bar", f"{most} bars", math.log1p(1) / math.log1p(most)),
        *axis_names("birth (state)", "death (state)"),
    ]
    said = "Birth across, death upward; color tells the number of bars, on a logarithmic scale."
    return svg.image(name, said, SIDE + LEFT + 10, SIDE + TOP + 38, parts)
