"""A lock that processes of one machine share, and that is free again when its holder dies."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows: nobody waits
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

POLL = 0.05


@contextmanager
def locked(path: Path, seconds: float) -> Iterator[bool | None]:
    """Hold a lock named by a file, which is there as long as somebody holds it.

    Args:
        path: the file.
        seconds: how long to wait for another holder; who does not wait is told nothing.

    Yields:
        Whether it is held; False after waiting in vain, None where files cannot be locked.
    """
    handle, possible = None, True
    try:
        try:
            handle = _opened(path, seconds)
        except OSError:
            possible = False
        yield handle is not None if possible else None
        _release(path, handle)
    except BaseException:
        # Ctrl-C may come between any two steps: whatever is held or made by now, the file goes unless
        # somebody else holds it.
        if handle is not None:
            handle.close()
        if fcntl is not None:
            with suppress(OSError):
                _release(path, _tried(path))
        raise


def _release(path: Path, handle: IO[bytes] | None) -> None:
    if handle is None:
        return
    # Deleted while it is held: whoever waits for this file notices and opens the next one.
    with suppress(OSError):
        path.unlink()
    handle.close()


def _opened(path: Path, seconds: float) -> IO[bytes] | None:
    """A handle that holds the lock, or None.

    Raises:
        OSError: files cannot be locked here.
    """
    if fcntl is None:
        raise OSError("no locks on this system")
    end, told = time.monotonic() + seconds, False
    while True:
        handle = _tried(path)
        if handle is not None or not seconds:
            return handle
        if time.monotonic() > end:
            log.warning("another process computes the same scores for %.0f s; not waiting longer", seconds)
            return None
        if not told:
            log.info("another process computes the same scores; waiting for them")
            told = True
        time.sleep(POLL)


def _tried(path: Path) -> IO[bytes] | None:
    """One attempt; None if somebody else holds the lock.

    Raises:
        OSError: the folder cannot be written, or its file system has no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = path.open("ab")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(handle.fileno()).st_ino == path.stat().st_ino:
            return handle
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        handle.close()
        raise
    handle.close()
    return None
