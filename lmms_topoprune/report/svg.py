"""A few SVG primitives: axes, lines, marks. Colors are CSS classes, so that dark mode works."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

Point = tuple[float, float]
MARKERS = ("circle", "square", "diamond", "triangle")
COLORS = 8
WIDE, NARROW = 860, 360
"""Widths of a chart on a desk and on a phone, where it would be unreadable if it only shrank."""


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers that cover a range."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def marker(series: int, x: float, y: float, title: str = "", r: float = 4.5) -> str:
    """A small mark; shape and color together tell 32 series apart, and shape alone the first four."""
    shape, css = MARKERS[(series + series // COLORS) % len(MARKERS)], f"mark f{series % COLORS}"
    note = f"<title>{html.escape(title)}</title>" if title else ""
    if shape == "circle":
        return f'<circle class="{css}" cx="{x:.1f}" cy="{y:.1f}" r="{r}">{note}</circle>'
    if shape == "square":
        sides = f'width="{2 * r - 1:g}" height="{2 * r - 1:g}"'
        return f'<rect class="{css}" x="{x - r + 0.5:.1f}" y="{y - r + 0.5:.1f}" {sides}>{note}</rect>'
    corners = [(0, -r - 1), (r + 1, 0), (0, r + 1), (-r - 1, 0)]
    if shape == "triangle":
        corners = [(0, -r - 1), (r + 1, r), (-r - 1, r)]
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
    return f'<polygon class="{css}" points="{points}">{note}</polygon>'


def stroke(series: int) -> str:
    return f"line s{series % COLORS}" + (f" dash{series // COLORS}" if series >= COLORS else "")


@dataclass
class Chart:
    """A plot with axes; coordinates are data values.

    Attributes:
        title, description: read out by screen readers.
        x_label, y_label: names of the axes with their units.
        x_range, y_range: shown data values.
        width: WIDE or NARROW.
        right: margin, where rules have their names.
    """

    title: str
    description: str
    x_label: str
    y_label: str
    x_range: Point
    y_range: Point
    width: int = WIDE
    right: int = 16
    body: list[str] = field(default_factory=list)

    left, top, bottom = 52, 14, 46

    @property
    def height(self) -> int:
        return 400 if self.width > NARROW else 300

    def x(self, value: float) -> float:
        low, high = self.x_range
        share = (value - low) / (high - low) if high > low else 0.5
        return self.left + share * (self.width - self.left - self.right)

    def y(self, value: float) -> float:
        low, high = self.y_range
        share = (value - low) / (high - low) if high > low else 0.5
        return self.height - self.bottom - share * (self.height - self.top - self.bottom)

    @contextmanager
    def series(self, series: int) -> Iterator[None]:
        """What is drawn in this block can be hidden by the legend."""
        self.body.append(f'<g data-series="{series}">')
        yield
        self.body.append("</g>")

    def line(self, points: Sequence[Point], css: str) -> None:
        path = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)
        self.body.append(f'<polyline class="{css}" points="{path}"/>')

    def bar(self, x: float, low: float, high: float, series: int) -> None:
        """A vertical interval."""
        low, high = max(low, self.y_range[0]), min(high, self.y_range[1])
        place = f'x1="{self.x(x):.1f}" x2="{self.x(x):.1f}" y1="{self.y(low):.1f}" y2="{self.y(high):.1f}"'
        self.body.append(f'<line class="line s{series % COLORS}" {place}/>')

    def mark(self, x: float, y: float, series: int, title: str) -> None:
        self.body.append(marker(series, self.x(x), self.y(y), title, 4.5 if self.width > NARROW else 3.5))

    def rule(self, y: float, label: str) -> None:
        """A dashed horizontal line with its name in the right margin."""
        if self.y_range[0] <= y <= self.y_range[1]:
            end, place = self.width - self.right, self.y(y)
            self.body.append(
                f'<line class="rule" x1="{self.left}" x2="{end}" y1="{place:.1f}" y2="{place:.1f}"/>'
                f'<text class="small" x="{end + 4}" y="{place + 3:.1f}">{html.escape(label)}</text>'
            )

    def render(self) -> str:
        parts = [*self._axes(), *self.body]
        return image(self.title, self.description, self.width, self.height, parts)

    def _axes(self) -> list[str]:
        floor, end = self.height - self.bottom, self.width - self.right
        parts = []
        for value in ticks(*self.y_range):
            y = self.y(value)
            parts.append(f'<line class="grid" x1="{self.left}" x2="{end}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text x="{self.left - 8}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
        for value in ticks(*self.x_range, 8 if self.width > NARROW else 4):
            parts.append(
                f'<text x="{self.x(value):.1f}" y="{floor + 18}" text-anchor="middle">{value:g}</text>'
            )
        middle = (self.top + floor) / 2
        parts.append(f'<line class="axis" x1="{self.left}" x2="{end}" y1="{floor}" y2="{floor}"/>')
        parts.append(
            f'<text x="{(self.left + end) / 2}" y="{self.height - 8}" text-anchor="middle">'
            f"{html.escape(self.x_label)}</text>"
        )
        parts.append(
            f'<text x="12" y="{middle}" text-anchor="middle" transform="rotate(-90 12 {middle})">'
            f"{html.escape(self.y_label)}</text>"
        )
        return parts


def image(title: str, description: str, width: float, height: float, parts: Sequence[str]) -> str:
    """An SVG image that scales with the page and names itself to screen readers."""
    return (
        f'<svg role="img" viewBox="0 0 {width:.0f} {height:.0f}" style="max-width:{width:.0f}px" '
        f'aria-label="{html.escape(title)}. {html.escape(description)}">{"".join(parts)}</svg>'
    )


def both(draw: Callable[[int], str]) -> str:
    """An image for wide and one for narrow screens; only one of them is there for a reader."""
    wide, narrow = (draw(width) for width in (WIDE, NARROW))
    return wide.replace("<svg ", '<svg class="wider" ', 1) + narrow.replace(
        "<svg ", '<svg class="narrow" ', 1
    )


def legend(names: Mapping[str, int]) -> str:
    """Marks and names of series as buttons that hide them; in HTML, so that it wraps on a phone."""
    items = "".join(
        f'<li><button type="button" aria-pressed="true" data-series="{series}">'
        f'<svg viewBox="0 0 14 14" width="14" height="14" aria-hidden="true">{marker(series, 7, 7)}</svg> '
        f"{html.escape(name)}</button></li>"
        for name, series in names.items()
    )
    every = (
        '<li><button type="button" data-every aria-pressed="true">all</button></li>' if len(names) > 3 else ""
    )
    return f'<ul class="legend" aria-label="Shown series; press to hide or show">{items}{every}</ul>'


def squares(places: Sequence[Point], size: float, css: str, opacity: float = 1.0) -> str:
    """Squares of one color as one path: a heat map of thousands stays small."""
    if not places:
        return ""
    path = "".join(f"M{x:g} {y:g}h{size:g}v{size:g}h-{size:g}z" for x, y in places)
    shade = "" if opacity >= 1 else f' fill-opacity="{opacity:.2f}"'
    return f'<path class="{css}"{shade} d="{path}"/>'
