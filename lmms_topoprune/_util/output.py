"""Writing what was made of results: all files or none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lmms_topoprune._util import files
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
        files.write_together(
            {path: text.encode() if isinstance(text, str) else text for path, text in texts.items()}
        )
    except OSError as error:
        # mkdir says this of a file where a folder is wanted.
        reason = "its folder is a file" if isinstance(error, FileExistsError) else error.strerror
        raise InputError(
            f"{str(error.filename)!r} cannot be written: {reason}; nothing was changed"
        ) from None
