"""Files of bars, from here and from elsewhere: which rows they hold, and whether their ends are closed."""

from __future__ import annotations

import csv
import io
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmms_topoprune.errors import InputError

Doubles = NDArray[np.float64]
MOST_STATES = 2048  # more than ten times the layers of the deepest decoders
MOST_BARS = 2**22  # fifty times the bars of 2,048 points in 33 states


def read_bars(path: Path | str) -> Doubles:
    """(bars, 3) dimension, birth, death from a text file; columns apart by commas or blanks, header optional.

    Raises:
        InputError: the file cannot be read, or a row is not a bar.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"barcode {str(path)!r} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"barcode {str(path)!r} is not a text file; allowed: CSV in UTF-8") from None
    rows = [row for row in map(_fields, csv.reader(io.StringIO(text))) if row]
    if rows and not any(map(_number, rows[0])):
        names = [name.lower() for name in rows.pop(0)]
        if "birth" in names and names.index("birth") != 1:
            raise InputError(
                f"barcode {str(path)!r} has the columns {','.join(names)}; allowed: dimension,birth,death"
            )
    for number, row in enumerate(rows):
        if len(row) != 3 or not all(map(_number, row)):
            raise InputError(
                f"barcode {str(path)!r}, bar {number} is {','.join(row)!r}; allowed: dimension,birth,death"
            )
    return np.array(rows, dtype=np.float64).reshape(-1, 3)


def with_open_ends(
    bars: Doubles, path: Path | str, closed: bool | None, states: int | None, first: int
) -> Doubles:
    """The bars as [birth, death), whichever way the file has them.

    Two things show which way that is: a bar that ends where it begins is closed, and the components that
    are left in the last state end at its index if they are closed, at the one after it if they are not.

    Raises:
        InputError: `closed` is None and the file shows closed ends.
    """
    single = np.flatnonzero(bars[:, 1] == bars[:, 2])
    seen = _seen(bars, states, first)
    if len(single) and closed is not True:
        row = ",".join(f"{value:g}" for value in bars[single[0]])
        raise InputError(
            f"barcode {str(path)!r}, bar {single[0]} is {row!r}, which only a closed interval can be; "
            "pass closed=True"
        )
    if seen is True and closed is None:
        raise InputError(
            f"barcode {str(path)!r} ends at {bars[:, 2].max():g}, where no half-open component ends; "
            "pass closed=True, first=1 if indices count from 1, or closed=False if bars were left out"
        )
    if seen is not None and closed is not None and seen != closed and not len(single):
        kind = "closed" if seen else "half-open"
        warnings.warn(f"barcode {str(path)!r} looks {kind}, but closed={closed} is given", stacklevel=3)
    return bars + np.array([0, 0, 1]) if closed else bars


def _seen(bars: Doubles, states: int | None, first: int) -> bool | None:
    """Whether the last components show closed ends; None if there is nothing to see."""
    if not (bars[:, 0] == 0).any() or not np.isfinite(bars).all():
        return None
    last = bars[:, 2].max() - first  # 2 (S - 1) if closed, else 2 (S - 1) + 1
    if states is not None and last not in (2 * states - 2, 2 * states - 1):
        return None
    return bool(last % 2 == 0)


def check_size(name: str, states: float, bars: int) -> None:
    """Refuse a barcode that no model has, before memory is spent on it.

    Raises:
        InputError: there are too many states or bars.
    """
    for what, value, most in (("states", states, MOST_STATES), ("bars", bars, MOST_BARS)):
        if not value <= most:
            raise InputError(f"{name} has {value:g} {what}; allowed: at most {most}")


def _fields(row: list[str]) -> list[str]:
    """A row of a CSV file, or one of columns apart by blanks."""
    return [field.strip() for field in (row[0].split() if len(row) == 1 else row)]


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
