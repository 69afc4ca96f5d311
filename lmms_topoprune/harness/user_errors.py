"""How a user's mistake ends: one sentence and a non-zero exit on the command line, an exception in Python."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lmms_topoprune._util.references import own_trace
from lmms_topoprune._util.signals import exit_of, interruptions_first, stoppable
from lmms_topoprune.calibration.ranks import Stopped
from lmms_topoprune.compat.evaluation import evaluation
from lmms_topoprune.errors import SPARE_MEMORY, InputError, TopopruneError, out_of_memory


def on_command_line() -> bool:
    """Whether lmms-eval's own command is running us, for one evaluation.

    It catches every Exception, prints a traceback and exits with 0, so only SystemExit gets through. That
    would end a list of evaluations (--config) too, which goes on after a bad entry, so there the error stays
    as it is.
    """
    given = evaluation().cli_args
    return given is not None and not _is_list(getattr(given, "config", None))


def _is_list(config: str | None) -> bool:
    if not config:
        return False
    import yaml

    entries = yaml.safe_load(Path(config).read_text(encoding="utf-8"))
    return isinstance(entries, list) and len(entries) > 1


class EndedByError(SystemExit):
    """Ends lmms-eval's command with one sentence.

    Attributes:
        error: what went wrong.
    """

    def __init__(self, error: TopopruneError, silent: bool = False) -> None:
        super().__init__(1 if silent else f"lmms-topoprune: {error}")
        self.error = error


@contextmanager
def one_sentence() -> Iterator[None]:
    """This package's errors become SystemExit on the command line; --verbosity DEBUG keeps the traceback.

    So do Ctrl-C and SIGTERM, with the exit code a shell gives for them, after one line.

    Raises:
        EndedByError: in place of an error of this package.
        SystemExit: in place of Ctrl-C or SIGTERM.
    """
    try:
        with stoppable(), interruptions_first(), _enough_memory():
            yield
    except (TopopruneError, KeyboardInterrupt) as error:
        if not on_command_line() or os.environ.get("VERBOSITY") == "DEBUG":
            raise
        # Where every process knows the same, one of them says it.
        silent = os.environ.get("RANK", "0") != "0" and isinstance(error, (Stopped, KeyboardInterrupt))
        if isinstance(error, TopopruneError):
            sys.stderr.write(own_trace(error))
            raise EndedByError(error, silent) from None
        text, code = exit_of(error)
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
