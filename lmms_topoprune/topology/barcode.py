"""Barcode: the bars of a zigzag module, and reading and writing them."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lmms_topoprune._util import files
from lmms_topoprune.errors import InputError
from lmms_topoprune.topology.points import whole

Doubles = NDArray[np.float64]
MOST_STATES = 2048  # more than ten times the layers of the deepest decoders
MOST_BARS = 2**22  # fifty times the bars of 2,048 points in 33 states


def read_bars(path: Path | str) -> Doubles:
    """(bars, 3) dimension, birth, death from a text file; columns apart by commas or blanks, header optional.

    Raises:
        InputError: the file cannot be read, or a row is not a bar.
    """
    try:
        text = files.read_text(Path(path), "utf-8-sig")
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


Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Barcode:
    """Bars [birth, death) over the indices 0..2(S-1).

    Index 2l is state l, index 2l + 1 what stands between the states l and l + 1: their intersection or
    their union.

    Attributes:
        dimension, birth, death: (bars,) int64, sorted by dimension, birth, death.
        states: S.
    """

    dimension: Ints = field(repr=False)
    birth: Ints = field(repr=False)
    death: Ints = field(repr=False)
    states: int

    def __post_init__(self) -> None:
        columns = [np.asarray(c) for c in (self.dimension, self.birth, self.death)]
        if any(c.ndim != 1 or c.shape != columns[0].shape for c in columns):
            raise InputError(
                f"bars have shapes {[c.shape for c in columns]}; allowed: three columns of one length"
            )
        whole = [c.astype(np.int64) for c in columns]
        if any((w != c).any() for w, c in zip(whole, columns, strict=True)):
            raise InputError("bars hold fractions; allowed: whole numbers (dimension, birth, death)")
        dimension, birth, death = whole
        bad = np.flatnonzero((dimension < 0) | (birth < 0) | (birth >= death) | (death > 2 * self.states - 1))
        if len(bad):
            row = bad[0]
            raise InputError(
                f"bar {row} is ({dimension[row]}, {birth[row]}, {death[row]}); "
                f"allowed for {self.states} states: dimension >= 0, "
                f"0 <= birth < death <= {2 * self.states - 1}"
            )
        if self.states < 1:
            raise InputError(f"states is {self.states}; allowed: at least 1")
        order = np.lexsort((death, birth, dimension))
        for name, column in zip(("dimension", "birth", "death"), whole, strict=True):
            column = column[order]
            column.setflags(write=False)
            object.__setattr__(self, name, column)

    def __len__(self) -> int:
        return len(self.birth)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Barcode)
            and self.states == other.states
            and np.array_equal(self.to_array(), other.to_array())
        )

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        counts = ", ".join(f"{(self.dimension == p).sum()} in H{p}" for p in np.unique(self.dimension))
        return f"barcode over {self.states} states: {counts or 'no bars'}"

    def bars(self, dimension: int) -> Ints:
        """(bars, 2): births and deaths in one dimension."""
        return self.to_array()[self.dimension == dimension, 1:]

    def to_array(self) -> Ints:
        """(bars, 3): dimension, birth, death."""
        return np.stack([self.dimension, self.birth, self.death], axis=1)

    @classmethod
    def of(
        cls, bars: ArrayLike | Iterable[tuple[int, int, int]], states: int | None = None, first: int = 0
    ) -> Barcode:
        """From rows (dimension, birth, death); without `states`, as few as hold the latest death.

        `first` is the index of state 0: 1 for barcodes that count from 1.

        Raises:
            InputError: the rows are not (bars, 3), or hold no whole numbers.
        """
        rows = np.asarray(bars if isinstance(bars, np.ndarray) else list(bars), dtype=np.float64)  # type: ignore[arg-type]
        rows = rows.copy() if rows.base is not None or rows is bars else rows
        rows = rows.reshape(0, 3) if rows.size == 0 else rows
        if rows.ndim != 2 or rows.shape[1] != 3:
            raise InputError(f"bars have shape {rows.shape}; allowed: (bars, 3) with dimension, birth, death")
        if not (exact := np.abs(rows) < 2**53).all():  # False for NaN
            row = int(np.argwhere(~exact)[0, 0])
            raise InputError(f"bar {row} is {tuple(rows[row].tolist())}; allowed: whole numbers below 2^53")
        rows[:, 1:] -= first
        if states is None:
            states = int(rows[:, 2].max(initial=1)) // 2 + 1
        return cls(rows[:, 0], rows[:, 1], rows[:, 2], states)  # type: ignore[arg-type]

    def counted(self) -> list[list[int]]:
        """Rows (dimension, birth, death, how many such bars): the barcode in as few numbers as hold it."""
        rows, counts = np.unique(self.to_array(), axis=0, return_counts=True)
        return [[*row, count] for row, count in zip(rows.tolist(), counts.tolist(), strict=True)]

    @classmethod
    def from_counted(cls, rows: Iterable[tuple[int, int, int, int]], states: int) -> Barcode:
        """The barcode that `counted` gave.

        Raises:
            InputError: a row is not a counted bar, or there are more bars or states than a model has.
        """
        table = list(rows)
        if any(len(row) != 4 or not all(map(whole, row)) or row[3] < 1 for row in table):
            raise InputError("counted bars are broken; allowed: rows (dimension, birth, death, count)")
        check_size("the barcode", states, sum(row[3] for row in table))
        if any(abs(number) > 2 * MOST_STATES for row in table for number in row[:3]):
            raise InputError("counted bars are broken; allowed: 0 <= birth < death <= 2 * states - 1")
        bars = np.array([row[:3] for row in table], dtype=np.int64).reshape(-1, 3)
        every = np.repeat(bars, [row[3] for row in table], axis=0)
        return cls(every[:, 0], every[:, 1], every[:, 2], states)

    @classmethod
    def load(
        cls, path: Path | str, states: int | None = None, first: int = 0, closed: bool | None = None
    ) -> Barcode:
        """Read a text file with the columns dimension, birth, death; a header is optional.

        Args:
            path: columns apart by commas (as `save` writes them) or blanks.
            states: S; None: as few as hold the latest death.
            first: the index of state 0: 1 for barcodes that count from 1.
            closed: whether the last index of a bar is its death, as FastZigZag's programs write it, or the
                one before, as here (False). None: half-open, unless the file shows otherwise.

        Raises:
            InputError: the file cannot be read, a row is not a bar, or intervals are closed and `closed`
                does not say so.
        """
        bars = with_open_ends(read_bars(path), path, closed, states, first)
        if np.isfinite(bars).all():  # others are named with their row
            latest = bars[:, 2].max(initial=1) - first
            check_size(f"barcode {str(path)!r}", (latest + 1) // 2 if states is None else states, len(bars))
        return cls.of(bars, states, first)

    def save(self, path: Path | str) -> None:
        lines = ["dimension,birth,death", *(",".join(map(str, bar)) for bar in self.to_array().tolist())]
        files.write_text(Path(path), "\n".join(lines) + "\n")
