"""Ctrl-C and SIGTERM both unwind the stack: temporary files go, and one line says what happened."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM, raised where Ctrl-C would raise KeyboardInterrupt."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Within this block SIGTERM raises Terminated instead of ending the process at once.

    Nothing changes outside of the main thread, where no signal arrives, or where the signal is already
    somebody else's.
    """
    here = threading.current_thread() is threading.main_thread()
    if not here or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _stop(number: int, frame: FrameType | None) -> None:
    raise Terminated


def farewell(stop: BaseException) -> tuple[str, int]:
    """What to say at the end, and the exit code that a shell gives for the signal.

    `stop` is the exception, or click's Abort, which click makes of it.
    """
    if isinstance(stop, Terminated) or isinstance(stop.__cause__, Terminated):
        return "terminated", 128 + signal.SIGTERM
    return "interrupted", 128 + signal.SIGINT


def finish_undisturbed() -> None:
    """All is said and done: a signal during the interpreter's own shutdown would only make noise."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
