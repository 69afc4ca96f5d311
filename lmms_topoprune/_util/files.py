"""Writing files so that a reader never sees half of one, hashing them, and locks between processes."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import filelock

from lmms_topoprune.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def write(path: Path, text: str) -> None:
    """Write a text file whole or not at all.

    Raises:
        InputError: the file cannot be written; nothing was overwritten.
    """
    write_all({path: text})


def write_all(texts: Mapping[Path, str | bytes]) -> None:
    """Write files of text or bytes, all of them or none.

    Raises:
        InputError: names the file that cannot be written; nothing was overwritten.
    """
    try:
        write_together(
            {path: text.encode() if isinstance(text, str) else text for path, text in texts.items()}
        )
    except OSError as error:
        raise InputError(
            f"{str(error.filename)!r} cannot be written: {error.strerror}; nothing was changed"
        ) from None


def read_bytes(path: Path) -> bytes:
    """The bytes of a file, and of nothing else: a pipe may never end, a device never does.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    check_regular(path)
    return path.read_bytes()


def is_hidden(path: Path) -> bool:
    """Whether a part of a path, relative to the folder that is looked through, begins with a dot."""
    return any(part.startswith(".") for part in path.parts)


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """The text of a file; errors as of `read_bytes`, and UnicodeDecodeError."""
    return read_bytes(path).decode(encoding)


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as a dictionary.

    Raises:
        InputError: it cannot be read, or is not valid TOML.
    """
    try:
        return tomllib.loads(read_text(path))
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{str(path)!r} is not valid TOML: {error}") from None


def check_regular(path: Path) -> None:
    """Refuse a pipe or a device; what is not there or is a folder is for the reader to say.

    Raises:
        OSError: it is one of them.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a file", str(path))


def sha256(path: Path) -> bytes:
    """Of a file, which is read in pieces.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    check_regular(path)
    found = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(2**20):
            found.update(piece)
    return found.digest()


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file or nothing: a temporary file beside it is renamed over it."""
    write_together({path: data})


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Write all files or none: nothing is made before all were looked at, or renamed before all are there.

    Raises:
        OSError: a file cannot be written; its `filename` is the one that was asked for.
    """
    drafts: dict[Path, Path] = {}
    made: list[Path] = []
    path = Path()
    try:
        for path in contents:
            _check_place(path)
        for path, data in contents.items():
            _draft(path, data, drafts, made)
        for path, draft in drafts.items():
            draft.replace(path)
    except BaseException as error:
        for draft in drafts.values():
            with suppress(OSError):  # on a read-only disk even removing what is not there fails
                draft.unlink()
        for folder in reversed(made):
            with suppress(OSError):  # somebody else uses it by now
                folder.rmdir()
        if isinstance(error, OSError):
            error.filename = str(path)
        raise


def _check_place(path: Path) -> None:
    """Raise OSError where a folder has that name, or a file the name of a folder above it."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not next(parent for parent in Path(os.path.realpath(path)).parents if parent.exists()).is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "its folder is a file")


def _draft(path: Path, data: bytes, drafts: dict[Path, Path], made: list[Path]) -> None:
    """Write `data` to a temporary file beside `path`, which `drafts` knows by the name it will have.

    A symbolic link stays one: what it points to is written. `made` takes the folders that were lacking.
    """
    path = Path(os.path.realpath(path)) if path.is_symlink() else path
    made += reversed([parent for parent in path.parents if not parent.exists()])
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():  # a pipe or a device: to be written to, not replaced
        path.write_bytes(data)
        return
    # Noted before it exists, since Ctrl-C may come between any two lines.
    draft = drafts[path] = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with draft.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def digest(value: Any) -> str:
    """A short stable hash (16 hex digits) of any JSON value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


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
