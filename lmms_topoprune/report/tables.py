"""A comparison in every form, and written to files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from lmms_topoprune._util.output import write, write_all
from lmms_topoprune.comparison.formats import csv_table, json_table, latex, markdown
from lmms_topoprune.comparison.side_by_side import Comparison
from lmms_topoprune.errors import unknown
from lmms_topoprune.report.figures import figure
from lmms_topoprune.report.leaderboard import leaderboard
from lmms_topoprune.report.render import page
from lmms_topoprune.results.similarity import Shape

__all__ = ["FORMATS", "SUFFIXES", "render", "save", "write"]


def html_page(comparison: Comparison) -> str:
    """The leaderboard alone, as a page like a report's."""
    return page("Pruned models compared", "Dense first, then by overall score.", [leaderboard(comparison)])


FORMATS: dict[str, Callable[[Comparison], str]] = {
    "markdown": markdown,
    "csv": csv_table,
    "json": json_table,
    "html": html_page,
    "latex": latex,
}
SUFFIXES = {".md": "markdown", ".csv": "csv", ".json": "json", ".html": "html", ".tex": "latex"}
PICTURES = (".pdf", ".svg")


def render(comparison: Comparison, form: str) -> str:
    """The comparison as text.

    Raises:
        OptionError: `form` is not one of FORMATS.
    """
    if form not in FORMATS:
        raise unknown("format", form, FORMATS)
    return FORMATS[form](comparison)


def save(comparison: Comparison, *paths: Path | str, shapes: Mapping[str, Shape] | None = None) -> None:
    """Write the comparison in the forms that the suffixes name, into all files or none.

    Args:
        comparison: what `compare` made of the runs.
        paths: the files.
        shapes: what criteria saw of the states, for figures.

    Raises:
        OptionError: a suffix is neither of SUFFIXES nor of PICTURES.
        MissingExtraError: a figure is asked for and matplotlib is not installed.
        InputError: a file cannot be written.
    """
    targets = [Path(path) for path in paths]
    for path in targets:
        if path.suffix not in (*SUFFIXES, *PICTURES):
            raise unknown("output suffix", path.suffix, [*SUFFIXES, *PICTURES])
    write_all(
        {
            path: figure(comparison, path.suffix[1:], shapes)
            if path.suffix in PICTURES
            else render(comparison, SUFFIXES[path.suffix])
            for path in targets
        }
    )
