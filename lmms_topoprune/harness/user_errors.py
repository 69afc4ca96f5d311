"""How a user's mistake ends: one sentence and a non-zero exit on the command line, an exception in Python."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from lmms_topoprune._util.signals import farewell, stoppable, unmasked
from lmms_topoprune.calibration.rank_watch import Stopped
from lmms_topoprune.errors import SPARE_MEMORY, InputError, TopopruneError, out_of_memory


def on_command_line() -> bool:
    """Whether lmms-eval's own command is running us.

    It catches every Exception, prints a traceback and exits with 0, so only SystemExit gets through.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        code = frame.f_code
        if code.co_name == "cli_evaluate" and Path(code.co_filename).parts[-2:] == (
            "lmms_eval",
            "__main__.py",
        ):
            return True
        frame = frame.f_back
    return False


@contextmanager
def one_sentence() -> Iterator[None]:
    """This package's errors become SystemExit on the command line; --verbosity DEBUG keeps the traceback.

    So do Ctrl-C and SIGTERM, with the exit code a shell gives for them, after one line.
    """
    try:
        with stoppable(), unmasked(), _enough_memory():
            yield
    except (TopopruneError, KeyboardInterrupt) as error:
        if not on_command_line() or os.environ.get("VERBOSITY") == "DEBUG":
            raise
        # Where every process knows the same, one of them says it.
        silent = int(os.environ.get("RANK", 0)) > 0 and isinstance(error, (Stopped, KeyboardInterrupt))
        if isinstance(error, TopopruneError):
            raise SystemExit(1 if silent else f"lmms-topoprune: {error}") from None
        text, code = farewell(error)
        if not silent:
            print(f"lmms-topoprune: {text}", file=sys.stderr)
        raise SystemExit(code) from None


@contextmanager
def _enough_memory() -> Iterator[None]:
    """Where memory runs out outside of a batch that could be halved, there is only something to advise."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise InputError(SPARE_MEMORY) from error
