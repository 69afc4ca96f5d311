"""A few SVG primitives: axes, lines, marks. Colors are CSS classes, so that dark mode works."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

Point = tuple[float, float]
MARKERS = ("circle", "square", "diamond", "triangle")


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers that cover a range."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def marker(kind: int, x: float, y: float, css: str, title: str = "") -> str:
    """A small mark whose shape, not only its color, tells series apart."""
    shape = MARKERS[kind % len(MARKERS)]
    r = 4.5
    note = f"<title>{html.escape(title)}</title>" if title else ""
    if shape == "circle":
        return f'<circle class="{css}" cx="{x:.1f}" cy="{y:.1f}" r="{r}">{note}</circle>'
    if shape == "square":
        return f'<rect class="{css}" x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8">{note}</rect>'
    corners = [(0, -r - 1), (r + 1, 0), (0, r + 1), (-r - 1, 0)]
    if shape == "triangle":
        corners = [(0, -r - 1), (r + 1, r), (-r - 1, r)]
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
    return f'<polygon class="{css}" points="{points}">{note}</polygon>'


@dataclass
class Chart:
    """A plot with axes; coordinates are data values.

    Attributes:
        title, description: read out by screen readers.
        x_label, y_label: names of the axes with their units.
        x_range, y_range: shown data values.
        x_ticks: values to label, if not round numbers.
    """

    title: str
    description: str
    x_label: str
    y_label: str
    x_range: Point
    y_range: Point
    x_ticks: Sequence[float] | None = None
    width: int = 640
    height: int = 360
    body: list[str] = field(default_factory=list)

    left, right, top, bottom = 58, 16, 14, 46

    def x(self, value: float) -> float:
        low, high = self.x_range
        share = (value - low) / (high - low) if high > low else 0.5
        return self.left + share * (self.width - self.left - self.right)

    def y(self, value: float) -> float:
        low, high = self.y_range
        share = (value - low) / (high - low) if high > low else 0.5
        return self.height - self.bottom - share * (self.height - self.top - self.bottom)

    def line(self, points: Sequence[Point], series: int) -> None:
        path = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)
        self.body.append(f'<polyline class="line s{series % 8}" points="{path}"/>')

    def bar(self, x: float, low: float, high: float, series: int) -> None:
        """A vertical interval."""
        low, high = max(low, self.y_range[0]), min(high, self.y_range[1])
        place = f'x1="{self.x(x):.1f}" x2="{self.x(x):.1f}" y1="{self.y(low):.1f}" y2="{self.y(high):.1f}"'
        self.body.append(f'<line class="line s{series % 8}" {place}/>')

    def mark(self, x: float, y: float, series: int, title: str) -> None:
        self.body.append(marker(series, self.x(x), self.y(y), f"mark f{series % 8}", title))

    def rule(self, y: float, label: str) -> None:
        """A dashed horizontal line with a name."""
        if self.y_range[0] <= y <= self.y_range[1]:
            end, place = self.width - self.right, self.y(y)
            self.body.append(
                f'<line class="rule" x1="{self.left}" x2="{end}" y1="{place:.1f}" y2="{place:.1f}"/>'
                f'<text class="small" x="{end}" y="{place - 4:.1f}" text-anchor="end">'
                f"{html.escape(label)}</text>"
            )

    def render(self) -> str:
        parts = [*self._axes(), *self.body]
        return figure(self.title, self.description, self.width, self.height, parts)

    def _axes(self) -> list[str]:
        floor, end = self.height - self.bottom, self.width - self.right
        parts = []
        for value in ticks(*self.y_range):
            y = self.y(value)
            parts.append(f'<line class="grid" x1="{self.left}" x2="{end}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text x="{self.left - 8}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
        for value in ticks(*self.x_range) if self.x_ticks is None else self.x_ticks:
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
            f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">'
            f"{html.escape(self.y_label)}</text>"
        )
        return parts


def figure(title: str, description: str, width: float, height: float, parts: Sequence[str]) -> str:
    """An SVG image that scales with the page and names itself to screen readers."""
    return (
        f'<svg role="img" viewBox="0 0 {width:.0f} {height:.0f}" style="max-width:{width:.0f}px" '
        f'aria-label="{html.escape(title)}. {html.escape(description)}">{"".join(parts)}</svg>'
    )


def legend(names: Sequence[str]) -> str:
    """Marks and names of series in HTML, so that it wraps on a phone."""
    items = "".join(
        f'<li><svg viewBox="0 0 14 14" width="14" height="14" aria-hidden="true">'
        f"{marker(i, 7, 7, f'mark f{i % 8}')}</svg> {html.escape(name)}</li>"
        for i, name in enumerate(names)
    )
    return f'<ul class="legend">{items}</ul>'
