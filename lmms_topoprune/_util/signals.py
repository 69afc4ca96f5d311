"""Ctrl-C and SIGTERM both unwind the stack: temporary files go, and one line says what happened."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import NoReturn

from lmms_topoprune.errors import led_to


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
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is _terminate:  # see ignore_signals
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated


@contextmanager
def interruptions_first() -> Iterator[None]:
    """An error raised over an interruption that came within this block is that interruption.

    A library whose own clean-up fails when it is interrupted hides the signal behind another error (the
    `finally` of transformers' no_init_weights reads a variable that is not bound yet); click makes an
    Abort of it, and Python before 3.12 a RuntimeError where a class was being made.
    """
    with errors_kept(()):
        yield


@dataclass
class errors_kept:
    """Within this block an error of the given kinds ends the block and is kept as `error`.

    Belongs wherever any error is an answer ("this layer cannot go", "this sample failed"): an interruption is
    never taken for one, also not where another error covers it.

    Attributes:
        kinds: of errors.
        error: what was raised; None if nothing was.
    """

    kinds: type[Exception] | tuple[type[Exception], ...] = Exception
    error: Exception | None = None
    _earlier: frozenset[int] = frozenset()

    def __enter__(self) -> errors_kept:
        self.error = None
        self._earlier = frozenset(map(id, led_to(sys.exc_info()[1])))  # what the caller handles is over
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        for behind in led_to(error):
            if isinstance(behind, KeyboardInterrupt) and id(behind) not in self._earlier:
                raise behind from None
        if not isinstance(error, self.kinds):
            return False
        self.error = error
        return True


def exit_of(stop: KeyboardInterrupt) -> tuple[str, int]:
    """What to say at the end, and the exit code that a shell gives for the signal."""
    if isinstance(stop, Terminated):
        return "terminated", 128 + signal.SIGTERM
    return "interrupted", 128 + signal.SIGINT


def ignore_signals() -> None:
    """All is said and done: a signal during the interpreter's own shutdown would only make noise."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
