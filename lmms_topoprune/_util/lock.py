"""A lock that processes of one machine share, and that is free again when its holder dies."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

log = logging.getLogger(__name__)

POLL = 0.05


class _Lock(filelock.FileLock):  # type: ignore[misc]
    """A class of its own: lmms-eval makes one object per path of filelock's, which locks nobody out of it."""


@contextmanager
def locked(path: Path, seconds: float) -> Iterator[bool | None]:
    """Hold a lock named by a file, which is there as long as somebody holds it.

    Args:
        path: the file.
        seconds: how long to wait for another holder; who does not wait is told nothing.

    Yields:
        Whether it is held; False after waiting in vain, None where files cannot be locked.
    """
    lock = _Lock(path, poll_interval=POLL)
    try:
        held = _acquired(lock, path, seconds)
        yield held
    finally:
        try:
            _remove(lock, path)
        except KeyboardInterrupt:
            _remove(lock, path)
            raise


def _remove(lock: _Lock, path: Path) -> None:
    """Delete the file unless somebody else holds it: Ctrl-C may come between any two steps of taking a lock.

    Deleted while it is held: whoever waits for it notices and makes the next one.
    """
    with suppress(OSError, filelock.Timeout):
        if not lock.is_locked and path.exists():
            lock.acquire(timeout=0)
        if lock.is_locked:
            path.unlink(missing_ok=True)
            lock.release()


def _acquired(lock: _Lock, path: Path, seconds: float) -> bool | None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(filelock.Timeout):
            lock.acquire(timeout=0)
            return True
        if not seconds:
            return False
        log.info("another process computes the same scores; waiting for them")
        lock.acquire(timeout=seconds)
        return True
    except filelock.Timeout:
        log.warning("another process computes the same scores for %.0f s; not waiting longer", seconds)
        return False
    except OSError:  # the folder cannot be written, or its file system has no locks
        return None
