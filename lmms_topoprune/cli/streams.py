"""Standard output and error that outlive their reader: who has gone away changes no verdict."""

from __future__ import annotations

import io
import sys
from typing import Any


class _Outlet(io.FileIO):
    """A file descriptor that takes anything once its reader has gone (`| head`) or it has failed.

    On a closed pipe click and rich would both end the process with exit code 1, that of a failed check.
    """

    def __init__(self, descriptor: int, title: str) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.title = title
        self.shut = False

    def write(self, data: Any, /) -> int:
        if not self.shut:
            try:
                return super().write(data)
            except OSError as error:
                self.shut = True
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
        outlet = io.TextIOWrapper(
            io.BufferedWriter(_Outlet(stream.fileno(), title)),
            encoding=stream.encoding,
            errors=stream.errors,
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )
        setattr(sys, name, outlet)
