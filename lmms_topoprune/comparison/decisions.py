"""What a table lets one say of a run. A question has one rule, and report and regress read it here.

That nothing is lost is shown by the interval, that something is lost by the test: neither follows from the
lack of the other, as with few documents, where both stay silent.
"""

from __future__ import annotations

from lmms_topoprune.comparison.paired import Cell
from lmms_topoprune.comparison.statistics import ROUNDING, Interval

LEVEL = 0.05
"""Of the paired test."""


def within(kept: Interval, tolerance: float) -> bool:
    """Whether at most that share of the quality over chance is lost.

    Args:
        kept: interval of the quality kept over chance, as tables show it.
        tolerance: share that may be lost.
    """
    return kept.low >= 1 - tolerance


def worse(cell: Cell, tolerance: float) -> bool:
    """Whether a score is below the reference's by more than a tolerance and than noise, by the tables' test.

    Args:
        cell: the run.
        tolerance: how much lower the score may be; a drop of exactly that is allowed.
    """
    return cell.difference < -tolerance - ROUNDING and cell.p <= LEVEL  # no test where p is not a number
