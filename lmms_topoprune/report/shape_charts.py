"""The charts of a report that show what topology saw: similarities, barcodes and persistence images."""

from __future__ import annotations

import html
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from lmms_topoprune.report import svg
from lmms_topoprune.report.leaderboard import folded
from lmms_topoprune.results.similarity import Shape
from lmms_topoprune.topology import Barcode, effective_persistence_image

SIDE = 350
SHADES = 20
MOST = 300
Named = list[tuple[str, Barcode, int]]


def heat_maps(shapes: Mapping[str, Shape]) -> str:
    """How much of state i is still there at state j, for every criterion that compares pairs of states."""
    found: list[tuple[list[str], list[list[float]]]] = []
    for criterion, shape in shapes.items():
        same = next((names for names, values in found if values == shape.similarity), None)
        if same is not None:
            same.append(criterion)
        elif shape.similarity:
            found.append(([criterion], shape.similarity))
    return _figures([_heat_map(", ".join(names), np.array(values)) for names, values in found])


def _heat_map(criterion: str, values: np.ndarray) -> str:
    size = SIDE / len(values)
    shaded = {(j, i): float(value) for (i, j), value in np.ndenumerate(values)}
    parts = [*_shades(shaded, size, len(values)), *_numbered(len(values), size), *_scale("0", "1")]
    said = "State i downward, state j across; the stronger the color, the more alike."
    image = svg.image(f"State similarity, {criterion}", said, SIDE + 40, SIDE + 56, parts)
    rows = [[str(i), *(f"{v:.3f}" for v in row)] for i, row in enumerate(values)]
    caption = f"{criterion}: state i (down) and state j (across)"
    return _figure(
        image, caption, f"Similarities of {criterion}", ["state", *map(str, range(len(values)))], rows
    )


def barcodes(shapes: Mapping[str, Shape]) -> Named:
    """The distinct barcodes behind the criteria, each with its name and homology dimension."""
    found: list[tuple[list[str], int, Barcode, int]] = []
    for criterion, shape in shapes.items():
        for k, (barcode, dimension) in (shape.barcodes or {}).items():
            same = next((f for f in found if f[1] == k and f[2] == barcode), None)
            if same is None:
                found.append(([criterion], k, barcode, dimension))
            else:
                same[0].append(criterion)
    return [(f"{', '.join(names)} (k = {k})", barcode, p) for names, k, barcode, p in found]


def persistence_images(named: Named) -> str:
    """The effective persistence image of every barcode: bars by the states of birth and death."""
    return _figures([_persistence_image(*entry) for entry in named])


def _persistence_image(name: str, barcode: Barcode, p: int) -> str:
    counts = effective_persistence_image(barcode, p)
    born, died = np.nonzero(counts)
    if not len(born):
        return ""
    states, most = barcode.states, int(counts.max())
    size = SIDE / (states + 1)
    shaded = {
        (b, states - d): math.log1p(counts[b, d]) / math.log1p(most)
        for b, d in zip(born.tolist(), died.tolist(), strict=True)
    }
    parts = [
        *_shades(shaded, size, states + 1),
        *_numbered(states + 1, size, upward=True),
        *_scale("1 bar", f"{most} bars", math.log1p(1) / math.log1p(most)),
    ]
    said = "Birth across, death upward; color tells the number of bars, on a logarithmic scale."
    image = svg.image(f"Persistence image of H{p}, {name}", said, SIDE + 40, SIDE + 56, parts)
    rows = [[str(b), str(d), str(counts[b, d])] for b, d in zip(born, died, strict=True)]
    caption = f"{name}: bars of H{p} by state of birth (across) and of death (upward)"
    return _figure(image, caption, f"Bars of {name} by birth and death", ["birth", "death", "bars"], rows)


def barcode_charts(named: Named) -> str:
    """The longest bars of every barcode."""
    return "".join(_barcode_chart(*entry) for entry in named)


def _barcode_chart(name: str, barcode: Barcode, p: int) -> str:
    bars = [(b, d, n) for q, b, d, n in barcode.counted() if q == p and (b % 2 == 0 or d - b > 1)]
    if not bars:
        return ""
    shown = longest(bars)
    caption = (
        f"{name}: the {sum(n for *_, n in shown)} longest of {sum(n for *_, n in bars)} bars of H{p}. "
        "A bar is a feature of the states' shape; it reaches over the states that have it."
    )
    rows = [[_at(b), _at(d), str(n)] for b, d, n in shown]
    heads = ["birth (state)", "death (state)", "bars"]
    title = f"Barcode of H{p}, {name}"
    drawn = svg.both(lambda width: _bars(title, shown, barcode.states, width))
    return f"<p>{html.escape(caption)}</p>{drawn}{folded(f'Shown bars of {name}', heads, rows)}"


def longest(bars: Sequence[tuple[int, int, int]], most: int = MOST) -> list[tuple[int, int, int]]:
    """Of counted bars (birth, death, how many) the `most` that live longest, sorted by birth."""
    kept, left = [], most
    for b, d, n in sorted(bars, key=lambda bar: (bar[0] - bar[1], bar[0])):
        if left > 0:
            kept.append((b, d, min(n, left)))
            left -= n
    return sorted(kept)


def _bars(title: str, bars: Sequence[tuple[int, int, int]], states: int, width: int) -> str:
    total = sum(n for *_, n in bars)
    said = "Each bar is a line from its birth to its death. The shown bars are in the table below."
    chart = svg.Chart(title, said, "state", "bars, by birth", (0, states - 0.5), (0, total), width)
    top = total
    for b, d, n in bars:
        # Bars of the same ends lie on one another, as a block.
        x, y, gap = chart.x(b / 2), chart.y(top), min(0.4, 0.3 * (chart.y(0) - chart.y(n)) / n)
        height = chart.y(top - n) - y - gap
        note = f"{n} from state {_at(b)} to {_at(d)}"
        chart.body.append(
            f'<rect class="bars" x="{x:.1f}" y="{y:.2f}" width="{chart.x(d / 2) - x:.1f}" '
            f'height="{height:.2f}"><title>{note}</title></rect>'
        )
        top -= n
    return chart.render()


def _at(index: int) -> str:
    """Odd places of the zigzag lie between two states."""
    return f"{index / 2:g}"


def _shades(shaded: Mapping[tuple[int, int], float], size: float, across: int) -> list[str]:
    """(column, row) -> shade in 0..1, as one path a shade."""
    frame = f'<rect class="kept" x="30" y="18" width="{SIDE}" height="{SIDE}"/>'
    levels: dict[int, list[svg.Point]] = defaultdict(list)
    for (column, row), value in shaded.items():
        levels[math.ceil(SHADES * min(max(value, 0.0), 1.0))].append(
            (round(30 + column * size, 2), round(18 + row * size, 2))
        )
    shown = sorted(level for level in levels if level > 0)
    return [frame, *(svg.squares(levels[n], round(size, 2), "heat", n / SHADES) for n in shown)]


def _numbered(count: int, size: float, upward: bool = False) -> list[str]:
    """Numbers of the columns above, of the rows to the left."""
    step = next(s for s in (2, 4, 5, 10, 20, 50, 100) if s * size >= 22)
    parts = []
    for i in range(0, count, step):
        middle, row = (i + 0.5) * size, (count - 1 - i if upward else i) + 0.5
        parts.append(f'<text class="small" x="{30 + middle:.1f}" y="12" text-anchor="middle">{i}</text>')
        parts.append(f'<text class="small" x="25" y="{21.5 + row * size:.1f}" text-anchor="end">{i}</text>')
    return parts


def _scale(low: str, high: str, start: float = 0.0) -> list[str]:
    """What the shades from `start` to 1 mean."""
    y, steps = SIDE + 30, 10
    shades = np.linspace(start, 1, steps)
    parts = [svg.squares([(120 + 12 * i, y)], 12, "heat", shade) for i, shade in enumerate(shades)]
    parts.append(f'<text class="small" x="114" y="{y + 10}" text-anchor="end">{low}</text>')
    parts.append(f'<text class="small" x="{126 + 12 * steps}" y="{y + 10}">{high}</text>')
    return parts


def _figure(image: str, caption: str, table: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return (
        f"<figure>{image}<figcaption>{html.escape(caption)}</figcaption>{folded(table, heads, rows)}</figure>"
    )


def _figures(figures: Sequence[str]) -> str:
    shown = "".join(figures)
    return f'<div class="figures">{shown}</div>' if shown else ""
