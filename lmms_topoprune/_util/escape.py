"""Text from outside in what other programs read: one place for each format.

Labels, tasks and file names come from results, plans and folders that anybody may have made.
"""

from __future__ import annotations

import re
import unicodedata

LATEX = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"–": "--", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}"},
}
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def printable(text: str) -> str:
    """One line without control characters or marks that turn its direction, for terminals and logs."""
    return "".join(_visible(c) for c in text)


def _visible(c: str) -> str:
    kind = unicodedata.category(c)
    if kind in ("Zl", "Zp") or c in "\n\r\t":
        return " "
    return "\N{REPLACEMENT CHARACTER}" if kind in ("Cc", "Cf", "Cs") and c != "\N{ZERO WIDTH JOINER}" else c


def markdown(text: str) -> str:
    """A cell of a table: no new line, no pipe, no HTML, no link or image."""
    text = "".join(f"\\{c}" if c in "\\|`[]" else c for c in printable(text))
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text)  # "p < 0.001" stays


def csv_cell(text: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    text = printable(text)
    return f"'{text}" if text.startswith(FORMULA) else text


def latex(text: str) -> str:
    return "".join(LATEX.get(c, c) for c in printable(text))


def xml(text: str) -> str:
    """XML knows no control characters, not even escaped ones."""
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)


def workflow_command(text: str, in_property: bool = False) -> str:
    """The message, or a property, of a command that GitHub reads from a job's output."""
    text = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return text.replace(":", "%3A").replace(",", "%2C") if in_property else text


def number(value: float) -> float:
    """A number without the digits that rounding leaves: 1.0000000000000002 is 1."""
    return float(f"{value:.12g}")
