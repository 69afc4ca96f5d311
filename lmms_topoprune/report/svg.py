"""SVG elements and shapes. Colors are CSS classes, so that light, dark and print each have their own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from markupsafe import Markup, escape

LINE = 15.0
"""Pixels from one label to the next."""


def padded(values: Sequence[float], share: float = 0.06) -> Point:
    """A range around the values."""
    low, high = min(values), max(values)
    margin = share * (high - low) or 1.0
    return low - margin, high + margin


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


def marker(series: int, x: float, y: float, said: str = "", r: float = 4.5) -> Markup:
    """A small mark; shape and color together tell 32 series apart, and shape alone the first four."""
    shape = MARKERS[(series + series // COLORS) % len(MARKERS)]
    css, note = f"mark f{series % COLORS}", title(said)
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


@dataclass
class Axes:
    """What is drawn in it has data coordinates; shifts are in pixels.

    Attributes:
        name, said: read out by screen readers.
        x_label, y_label: names of the axes with their units.
        x_range, y_range: shown data values; a y axis that begins above 0 has a mark that says so.
        width: WIDE or NARROW.
        right: margin, where lines have their names.
        y_named: (place, name) of rows instead of numbers.
    """

    name: str
    said: str
    x_label: str
    y_label: str
    x_range: Point
    y_range: Point
    width: int = WIDE
    right: float = 16
    left: float = 50
    height: float = 0
    y_named: Sequence[tuple[float, str]] = ()
    unit: str = ""
    body: list[Markup] = field(default_factory=list)

    top, bottom = 16, 44

    def __post_init__(self) -> None:
        self.height = self.height or (400 if self.wide else 320)

    @property
    def wide(self) -> bool:
        return self.width > NARROW

    @property
    def floor(self) -> float:
        return self.height - self.bottom

    def x(self, value: float) -> float:
        return _place(value, self.x_range, self.left, self.width - self.right)

    def y(self, value: float) -> float:
        return _place(value, self.y_range, self.floor, self.top)

    @contextmanager
    def series(self, number: int) -> Iterator[None]:
        """What is drawn in this block can be hidden by the legend."""
        start = len(self.body)
        yield
        self.body[start:] = [group(*self.body[start:], series=number)]

    def line(self, points: Sequence[Point], css: str, shift: float = 0.0) -> None:
        self.body.append(path(self._places(points, shift), css))

    def band(self, lows: Sequence[Point], highs: Sequence[Point], css: str, shift: float = 0.0) -> None:
        """The area between two lines over the same places."""
        self.body.append(path(self._places([*lows, *reversed(highs)], shift), css, closed=True))

    def _places(self, points: Sequence[Point], shift: float) -> list[Point]:
        """In pixels; what lies on the left edge stays there."""
        return [(self.x(x) + (shift if x > self.x_range[0] else 0.0), self._inside(y)) for x, y in points]

    def interval(self, x: Point, y: Point, css: str, shift: Point = (0.0, 0.0)) -> None:
        """A bar from (x[0], y[0]) to (x[1], y[1]), cut at the frame."""
        right, down = shift
        (x1, x2), (y1, y2) = (sorted(map(self.x, x)), map(self._inside, y))
        self.body.append(
            line(max(x1 + right, self.left), y1 + down, min(x2 + right, self.width), y2 + down, css)
        )

    def mark(
        self, x: float, y: float, series: int, said: str, shift: Point = (0.0, 0.0), r: float = 4.5
    ) -> None:
        size = r if self.wide else 0.8 * r
        self.body.append(marker(series, self.x(x) + shift[0], self._inside(y) + shift[1], said, size))

    def rule(self, y: float, said: str) -> None:
        """A dashed horizontal line with its name above its left end."""
        if self.y_range[0] <= y <= self.y_range[1]:
            place = self.y(y)
            self.body += [
                line(self.left, place, self.width - self.right, place, "rule"),
                text(self.left + 4, place - 4, said, css="small"),
            ]

    def labels(self, ends: Sequence[tuple[Point, str, int]], gap: float = LINE) -> None:
        """Names of series beside their last points, moved apart where they meet."""
        places = spread([self.y(y) for (_, y), _, _ in ends], gap, self.top + 4, self.floor - 2)
        for ((x, y), said, number), place in zip(ends, places, strict=True):
            start, end = self.x(x) + 14, self.width - self.right + 20
            lead = path([(start, self._inside(y)), (end - 3, place)], "lead")
            name = text(end, place + 4, said, css=f"t{number % COLORS} direct")
            self.body.append(group(lead, name, series=number))

    def render(self) -> Markup:
        return image(self.name, self.said, self.width, self.height, [*self._axes(), *self.body])

    def _inside(self, y: float) -> float:
        return min(max(self.y(y), self.top), self.floor)

    def _axes(self) -> list[Markup]:
        end = self.width - self.right
        parts = [*self._rows(end), line(self.left, self.floor, end, self.floor, "axis")]
        for value in ticks(*self.x_range, 7 if self.wide else 4):
            parts.append(text(self.x(value), self.floor + 17, f"{value:g}{self.unit}", "middle"))
        middle = (self.top + self.floor) / 2
        parts.append(text((self.left + end) / 2, self.height - 8, self.x_label, "middle", "label"))
        turned = {"transform": f"rotate(-90 12 {middle:.0f})", "text_anchor": "middle", "class_": "label"}
        if self.y_label:
            parts.append(element("text", self.y_label, x=12, y=middle, **turned))
        return parts

    def _rows(self, end: float) -> list[Markup]:
        rows = self.y_named or [(value, f"{value:g}") for value in ticks(*self.y_range)]
        parts = []
        for value, said in rows:
            y = self.y(value)
            parts += [
                line(self.left, y, end, y, "grid"),
                text(self.left - 8, y + 4, said, "end"),
            ]
        if not self.y_named and self.y_range[0] > 0:
            parts += self._broken()
        return parts

    def _broken(self) -> list[Markup]:
        """The sign of an axis that does not begin at 0."""
        x, y = self.left, self.floor
        zigzag = [(x, y), (x, y - 4), (x - 4, y - 7), (x + 4, y - 11), (x, y - 14), (x, y - 20)]
        said = f"axis begins at {self.y_range[0]:.3g}"
        return [path(zigzag, "axis broken"), text(x + 8, y - 6, said, css="small")]


def _place(value: float, values: Point, start: float, end: float) -> float:
    low, high = values
    share = (value - low) / (high - low) if high > low else 0.5
    return start + share * (end - start)


Point = tuple[float, float]
