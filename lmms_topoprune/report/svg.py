"""SVG elements and shapes. Colors are CSS classes, so that light, dark and print each have their own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from markupsafe import Markup, escape

Point = tuple[float, float]
MARKERS = ("circle", "square", "diamond", "triangle")
COLORS = 8
WIDE, NARROW = 660, 360
"""Widths of a figure on a desk and on a phone, where it would be unreadable if it only shrank."""
EMPTY = Markup("")


def element(tag: str, *content: object, **attributes: object) -> Markup:
    """An element: texts and values are escaped; `class_` is class, `stroke_width` stroke-width."""
    written = EMPTY.join(
        Markup(' {}="{}"').format(name.rstrip("_").replace("_", "-"), _written(value))
        for name, value in attributes.items()
        if value is not None
    )
    inside = EMPTY.join(part if isinstance(part, Markup) else escape(part) for part in content)
    return Markup("<{0}{1}>{2}</{0}>").format(tag, written, inside)


def _written(value: object) -> object:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value


def text(x: float, y: float, said: str, anchor: str | None = None, css: str | None = None) -> Markup:
    """A line of text; `anchor` is start, middle or end."""
    return element("text", said, x=float(x), y=float(y), text_anchor=anchor, class_=css)


def title(said: str) -> Markup:
    """What a pointer over a mark is told."""
    return element("title", said) if said else EMPTY


def rect(x: float, y: float, width: float, height: float, css: str, said: str = "", **more: object) -> Markup:
    place = {"x": float(x), "y": float(y), "width": float(width), "height": float(height)}
    return element("rect", title(said), class_=css, **place, **more)


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> Markup:
    return element("line", class_=css, x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2))


def path(points: Sequence[Point], css: str, closed: bool = False) -> Markup:
    """A line through points, or the area that they enclose."""
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return element("polygon" if closed else "polyline", class_=css, points=places)


def group(*parts: Markup, series: int | None = None) -> Markup:
    """Parts that a legend hides together."""
    return element("g", *parts, data_series=series)


def marker(series: int, x: float, y: float, said: str = "", r: float = 4.5, css: str = "") -> Markup:
    """A small mark; shape and color together tell 32 series apart, and shape alone the first four."""
    shape = MARKERS[(series + series // COLORS) % len(MARKERS)]
    css, note = f"mark f{series % COLORS} {css}".rstrip(), title(said)
    if shape == "circle":
        return element("circle", note, class_=css, cx=float(x), cy=float(y), r=r)
    if shape == "square":
        return rect(x - r + 0.5, y - r + 0.5, 2 * r - 1, 2 * r - 1, css, said)
    corners = [(0, -r - 1), (r + 1, 0), (0, r + 1), (-r - 1, 0)]
    if shape == "triangle":
        corners = [(0, -r - 1), (r + 1, r), (-r - 1, r)]
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
    return element("polygon", note, class_=css, points=points)


def stroke(series: int) -> str:
    """The class of a series' line."""
    return f"line s{series % COLORS}" + (f" dash{series // COLORS}" if series >= COLORS else "")


def squares(places: Sequence[Point], width: float, height: float, css: str, opacity: float = 1.0) -> Markup:
    """Rectangles of one color as one path: a heat map of thousands stays small."""
    if not places:
        return EMPTY
    drawn = "".join(f"M{x:g} {y:g}h{width:g}v{height:g}h-{width:g}z" for x, y in places)
    return element("path", class_=css, d=drawn, fill_opacity=None if opacity >= 1 else f"{opacity:.2f}")


def image(name: str, said: str, width: float, height: float, parts: Sequence[Markup]) -> Markup:
    """A drawing that scales with the page and names itself to screen readers."""
    return element(
        "svg",
        *parts,
        role="img",
        viewBox=f"0 0 {width:.0f} {height:.0f}",
        style=f"max-width:{width:.0f}px",
        aria_label=f"{name}. {said}",
    )


def both(draw: Callable[[int], Markup]) -> list[Markup]:
    """A drawing for wide and one for narrow screens."""
    return [draw(WIDE), draw(NARROW)]


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers that cover a range."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places moved apart to at least `gap`, as little as it takes, and inside low..high if they fit.

    Overlapping places become a block around their mean (pool adjacent violators).
    """
    order = sorted(range(len(places)), key=lambda i: places[i])
    blocks: list[tuple[float, int]] = []  # of the places less i * gap: their mean and how many
    for rank, i in enumerate(order):
        mean, size = places[i] - rank * gap, 1
        while blocks and blocks[-1][0] > mean:
            other, count = blocks.pop()
            mean, size = (mean * size + other * count) / (size + count), size + count
        blocks.append((mean, size))
    moved = [mean for mean, size in blocks for _ in range(size)]
    top = high - gap * (len(places) - 1)
    found = [0.0] * len(places)
    for rank, i in enumerate(order):
        found[i] = max(low, min(moved[rank], top)) + rank * gap
    return found
