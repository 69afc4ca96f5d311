"""The page's templates. Whatever comes from outside is escaped here, by jinja2, and nowhere else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from lmms_topoprune.comparison.columns import Column
from lmms_topoprune.report import svg


@dataclass(frozen=True)
class Table:
    """Texts under headings; the first cell of a row names it."""

    name: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Figure:
    """A drawing and its numbers.

    Attributes:
        name: of the figure, and of the file it is saved as.
        images: SVG for wide and for narrow screens, or one for both.
        table: every number that is drawn.
        caption: what a reader has to know to read it.
        legend: series -> its number, for buttons that hide it.
    """

    name: str
    images: Sequence[Markup]
    table: Table
    caption: str = ""
    legend: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Section:
    """A part of the page: a template and what it shows."""

    anchor: str
    heading: str
    template: str
    content: Any


def figures(
    anchor: str, heading: str, found: Sequence[Figure | None], folded: Sequence[Figure | None] = ()
) -> Section | None:
    """A section of figures, some of them behind a line that opens them; None without any."""
    shown, more = ([figure for figure in some if figure] for some in (found, folded))
    content = {"figures": shown, "folded": more}
    return Section(anchor, heading, "figures.html", content) if shown or more else None


@cache
def environment() -> Environment:
    """Every value is escaped, and a misspelt name is an error."""
    found = Environment(
        loader=PackageLoader("lmms_topoprune.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"sort_key": sort_key, "kind": kind, "breakable": breakable}
    found.globals |= {"asset": asset, "marker": svg.marker}
    return found


@cache
def asset(name: str) -> Markup:
    """A style or script of the page as it is."""
    return Markup((files("lmms_topoprune.report") / "templates" / name).read_text(encoding="utf-8"))


def breakable(text: str) -> Markup:
    """A long name may go on in another line after an underscore."""
    return escape(text).replace("_", Markup("_<wbr>"))


def sort_key(value: object) -> str | None:
    """What a table's cell is sorted by; None where there is no number."""
    known = isinstance(value, (int, float)) and math.isfinite(value)
    return f"{value:.9g}" if known else None


def kind(column: Column) -> str:
    """The class of a column's cells: what a switch hides, what may break."""
    hidden = column.name.startswith("task ") or column.table is None
    return f"{'task ' if hidden else ''}{'short' if column.is_number else 'long'}"


def page(title: str, summary: str, sections: Sequence[Section]) -> str:
    """The whole page.

    Args:
        title: its heading.
        summary: its first paragraph.
        sections: in order.
    """
    template = environment().get_template("page.html")
    return template.render(title=title, summary=summary, sections=sections) + "\n"
