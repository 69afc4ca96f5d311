"""lmms-eval logs a lot: keep it in a file while a progress bar of ours is on the screen."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO


class Diverted:
    """A stream that writes to a file while it is diverted, and to the screen before and after.

    Libraries that are imported meanwhile keep it as their sys.stderr, so it must outlive the file.
    """

    def __init__(self, screen: TextIO, file: TextIO) -> None:
        self.screen, self.file = screen, file

    def write(self, text: str) -> int:
        return (self.screen if self.file.closed else self.file).write(text)

    def flush(self) -> None:
        (self.screen if self.file.closed else self.file).flush()

    def isatty(self) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.screen, name)


@contextmanager
def logged_to(path: Path, on_error: Callable[[str], None] | None = None) -> Iterator[None]:
    """Append standard output, standard error and loguru's messages to a file within this block.

    Args:
        path: the log file.
        on_error: receives every message that lmms-eval logs as an error.
    """
    from loguru import logger

    path.parent.mkdir(parents=True, exist_ok=True)
    out, err = sys.stdout, sys.stderr
    with path.open("a", encoding="utf-8") as file:
        sys.stdout, sys.stderr = Diverted(out, file), Diverted(err, file)
        logger.remove()
        logger.add(file, level="INFO")
        if on_error is not None:
            logger.add(lambda message: on_error(message.record["message"]), level="ERROR")
        try:
            yield
        finally:
            sys.stdout, sys.stderr = out, err
            logger.remove()
            logger.add(sys.stderr)
