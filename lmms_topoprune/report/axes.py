"""A plot with axes: data values in, SVG out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from markupsafe import Markup

from lmms_topoprune.report import svg
from lmms_topoprune.report.svg import NARROW, WIDE, Point, ticks

LINE = 15.0
"""Pixels from one label to the next."""


def padded(values: Sequence[float], share: float = 0.06) -> Point:
    """A range around the values."""
    low, high = min(values), max(values)
    margin = share * (high - low) or 1.0
    return low - margin, high + margin


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
        self.body[start:] = [svg.group(*self.body[start:], series=number)]

    def line(self, points: Sequence[Point], css: str, shift: float = 0.0) -> None:
        self.body.append(svg.path(self._places(points, shift), css))

    def band(self, lows: Sequence[Point], highs: Sequence[Point], css: str, shift: float = 0.0) -> None:
        """The area between two lines over the same places."""
        self.body.append(svg.path(self._places([*lows, *reversed(highs)], shift), css, closed=True))

    def _places(self, points: Sequence[Point], shift: float) -> list[Point]:
        """In pixels; what lies on the left edge stays there."""
        return [(self.x(x) + (shift if x > self.x_range[0] else 0.0), self._inside(y)) for x, y in points]

    def interval(self, x: Point, y: Point, css: str, shift: Point = (0.0, 0.0)) -> None:
        """A bar from (x[0], y[0]) to (x[1], y[1]), cut at the frame."""
        right, down = shift
        (x1, x2), (y1, y2) = (sorted(map(self.x, x)), map(self._inside, y))
        self.body.append(
            svg.line(max(x1 + right, self.left), y1 + down, min(x2 + right, self.width), y2 + down, css)
        )

    def mark(
        self, x: float, y: float, series: int, said: str, shift: Point = (0.0, 0.0), r: float = 4.5
    ) -> None:
        size = r if self.wide else 0.8 * r
        self.body.append(svg.marker(series, self.x(x) + shift[0], self._inside(y) + shift[1], said, size))

    def rule(self, y: float, said: str) -> None:
        """A dashed horizontal line with its name above its left end."""
        if self.y_range[0] <= y <= self.y_range[1]:
            place = self.y(y)
            self.body += [
                svg.line(self.left, place, self.width - self.right, place, "rule"),
                svg.text(self.left + 4, place - 4, said, css="small"),
            ]

    def labels(self, ends: Sequence[tuple[Point, str, int]], gap: float = LINE) -> None:
        """Names of series beside their last points, moved apart where they meet."""
        places = svg.spread([self.y(y) for (_, y), _, _ in ends], gap, self.top + 4, self.floor - 2)
        for ((x, y), said, number), place in zip(ends, places, strict=True):
            start, end = self.x(x) + 14, self.width - self.right + 20
            lead = svg.path([(start, self._inside(y)), (end - 3, place)], "lead")
            name = svg.text(end, place + 4, said, css=f"t{number % svg.COLORS} direct")
            self.body.append(svg.group(lead, name, series=number))

    def render(self) -> Markup:
        return svg.image(self.name, self.said, self.width, self.height, [*self._axes(), *self.body])

    def _inside(self, y: float) -> float:
        return min(max(self.y(y), self.top), self.floor)

    def _axes(self) -> list[Markup]:
        end = self.width - self.right
        parts = [*self._rows(end), svg.line(self.left, self.floor, end, self.floor, "axis")]
        for value in ticks(*self.x_range, 7 if self.wide else 4):
            parts.append(svg.text(self.x(value), self.floor + 17, f"{value:g}{self.unit}", "middle"))
        middle = (self.top + self.floor) / 2
        parts.append(svg.text((self.left + end) / 2, self.height - 8, self.x_label, "middle", "label"))
        turned = {"transform": f"rotate(-90 12 {middle:.0f})", "text_anchor": "middle", "class_": "label"}
        if self.y_label:
            parts.append(svg.element("text", self.y_label, x=12, y=middle, **turned))
        return parts

    def _rows(self, end: float) -> list[Markup]:
        rows = self.y_named or [(value, f"{value:g}") for value in ticks(*self.y_range)]
        parts = []
        for value, said in rows:
            y = self.y(value)
            parts += [
                svg.line(self.left, y, end, y, "grid"),
                svg.text(self.left - 8, y + 4, said, "end"),
            ]
        if not self.y_named and self.y_range[0] > 0:
            parts += self._broken()
        return parts

    def _broken(self) -> list[Markup]:
        """The sign of an axis that does not begin at 0."""
        x, y = self.left, self.floor
        zigzag = [(x, y), (x, y - 4), (x - 4, y - 7), (x + 4, y - 11), (x, y - 14), (x, y - 20)]
        said = f"axis begins at {self.y_range[0]:.3g}"
        return [svg.path(zigzag, "axis broken"), svg.text(x + 8, y - 6, said, css="small")]


def _place(value: float, values: Point, start: float, end: float) -> float:
    low, high = values
    share = (value - low) / (high - low) if high > low else 0.5
    return start + share * (end - start)
