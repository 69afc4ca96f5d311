"""How alike the states are to the criteria that compare them, with the blocks that they drop."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup

from lmms_topoprune.plan import format_layers
from lmms_topoprune.report import svg
from lmms_topoprune.report.layers import Strip
from lmms_topoprune.report.render import Figure, Table
from lmms_topoprune.results.similarity import Shape

SIDE, LEFT, TOP = 350, 44, 30
SHADES = 20


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


def blocks(layers: Sequence[int]) -> list[tuple[int, int]]:
    """First and last layer of every run of consecutive layers."""
    found: list[tuple[int, int]] = []
    for layer in sorted(layers):
        if found and layer == found[-1][1] + 1:
            found[-1] = (found[-1][0], layer)
        else:
            found.append((layer, layer))
    return found


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
    for first, last in blocks(dropped):
        if last + 1 < len(values):
            # Dropping layers first..last joins the states before and after them.
            place, side = first * size, (last + 2 - first) * size
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
