"""Writing files so that a reader never sees half of one, and hashing what they hold."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lmms_topoprune.errors import InputError


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
        # mkdir says this of a file where a folder is wanted.
        reason = "its folder is a file" if isinstance(error, FileExistsError) else error.strerror
        raise InputError(
            f"{str(error.filename)!r} cannot be written: {reason}; nothing was changed"
        ) from None


def read_bytes(path: Path) -> bytes:
    """The bytes of a file, and of nothing else: a pipe may never end, a device never does.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    check_regular(path)
    return path.read_bytes()


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """The text of a file; errors as of `read_bytes`, and UnicodeDecodeError."""
    return read_bytes(path).decode(encoding)


def check_regular(path: Path) -> None:
    """Raise OSError for a pipe or a device; what is not there or is a folder is for the reader to say."""
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
    """Write all files or none: nothing is renamed before everything is on the disk.

    Raises:
        OSError: a file cannot be written; its `filename` is the one that was asked for.
    """
    drafts: dict[Path, Path] = {}
    path = Path()
    try:
        for path, data in contents.items():
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            _draft(path, data, drafts)
        for path, draft in drafts.items():
            draft.replace(path)
    except BaseException as error:
        for draft in drafts.values():
            with suppress(OSError):  # on a read-only disk even removing what is not there fails
                draft.unlink()
        if isinstance(error, OSError):
            error.filename = str(path)
        raise


def _draft(path: Path, data: bytes, drafts: dict[Path, Path]) -> None:
    """Write `data` to a temporary file beside `path`, which `drafts` knows by the name it will have.

    A symbolic link stays one: what it points to is written.
    """
    path = Path(os.path.realpath(path)) if path.is_symlink() else path
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
