"""Standard output and error that outlive their reader: who has gone away changes no verdict."""

from __future__ import annotations

import io
import os
import sys
from typing import Any


class _Stream(io.FileIO):
    """A file descriptor that is turned to the null device once its reader has gone (`| head`) or it failed.

    That is Python's own recipe for closed pipes
    (https://docs.python.org/3/library/signal.html#note-on-sigpipe), at the write instead of around main():
    there click and rich have ended the process with exit code 1 already, that of a failed check.
    """

    def __init__(self, descriptor: int, title: str) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.title = title

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            if not isinstance(error, BrokenPipeError):
                error.filename = self.title
                raise
        return memoryview(data).nbytes


def outlive_readers() -> None:
    """Replace this process's standard output and error, for good; errors of theirs name them."""
    for name, title in (("stdout", "standard output"), ("stderr", "standard error")):
        stream = getattr(sys, name)
        if stream is None or stream is not getattr(sys, f"__{name}__"):  # closed, or somebody else's
            continue
        stream.flush()
        replacement = io.TextIOWrapper(
            io.BufferedWriter(_Stream(stream.fileno(), title)),
            encoding=stream.encoding,
            errors=stream.errors,
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )
        setattr(sys, name, replacement)
