"""Ctrl-C and SIGTERM both unwind the stack: temporary files go, and one line says what happened."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, ParamSpec, TypeVar
from unittest import mock

from lmms_topoprune.errors import led_to

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

P = ParamSpec("P")
T = TypeVar("T")

MOMENT = 0.01  # seconds; no finalizer takes as long


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
    before = sys.unraisablehook

    def swallowed(args: UnraisableHookArgs) -> None:
        """Python swallows, after a traceback, what is raised in a finalizer: ask again in a moment."""
        if not isinstance(args.exc_value, KeyboardInterrupt):
            return before(args)
        number = signal.SIGTERM if isinstance(args.exc_value, Terminated) else signal.SIGINT
        again = threading.Timer(MOMENT, os.kill, (os.getpid(), number))
        again.daemon = True
        again.start()

    try:
        with mock.patch.object(sys, "unraisablehook", swallowed):
            yield
    finally:
        if signal.getsignal(signal.SIGTERM) is _stop:  # see finish_undisturbed
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _stop(number: int, frame: FrameType | None) -> None:
    raise Terminated


@contextmanager
def unmasked() -> Iterator[None]:
    """An error raised over an interruption that came within this block is that interruption.

    A library whose own clean-up fails when it is interrupted hides the signal behind another error (the
    `finally` of transformers' no_init_weights reads a variable that is not bound yet); click makes an
    Abort of it, and Python before 3.12 a RuntimeError where a class was being made. Belongs wherever any
    error is taken for an answer: "this layer cannot go", "this sample failed".
    """
    earlier = set(map(id, led_to(sys.exc_info()[1])))  # the caller may be handling one: that is over
    try:
        yield
    except Exception as error:
        for behind in led_to(error):
            if isinstance(behind, KeyboardInterrupt) and id(behind) not in earlier:
                raise behind from None
        raise


def attempt(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[T | None, Exception | None]:
    """Call where any error is an answer: (result, None) or (None, error). An interruption is raised."""
    try:
        with unmasked():
            return function(*args, **kwargs), None
    except Exception as error:
        return None, error


def farewell(stop: KeyboardInterrupt) -> tuple[str, int]:
    """What to say at the end, and the exit code that a shell gives for the signal."""
    if isinstance(stop, Terminated):
        return "terminated", 128 + signal.SIGTERM
    return "interrupted", 128 + signal.SIGINT


def finish_undisturbed() -> None:
    """All is said and done: a signal during the interpreter's own shutdown would only make noise."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
