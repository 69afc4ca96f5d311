"""Trying something that may fail, where a failure is an answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from lmms_topoprune._util.signals import unmasked

Result = TypeVar("Result")


def attempt(work: Callable[[], Result], failures: type[Exception] = Exception) -> Result | None:
    """What the work gives, or None if it fails in one of these ways; an interruption is no failure."""
    try:
        with unmasked():
            return work()
    except failures:
        return None
