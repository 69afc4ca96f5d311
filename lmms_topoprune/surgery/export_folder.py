"""A folder that appears under its name only when it is whole, and replaces nothing that it was not shown."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lmms_topoprune.errors import OptionError

Stamp = tuple[int, int, frozenset[tuple[str, int, int]]]


@contextmanager
def new_folder(folder: Path, overwrite: bool = False) -> Iterator[Path]:
    """A folder to fill, which takes the name `folder` when the block ends and vanishes if it fails.

    A symbolic link is followed. What is in place is looked at again at the moment of the rename: without
    `overwrite` only an empty folder gives way, with it only what was there when the block began.

    Raises:
        OptionError: `folder` is a file or below one, it is not empty and overwrite is off, or somebody else
            has written to it meanwhile; nothing of theirs was touched.
    """
    folder = folder.resolve()
    before = _checked(folder, overwrite)
    made = [parent for parent in folder.parents if not parent.exists()]
    # Beside the target, so that the last step is a rename within one file system.
    # It is named before it exists and cleared away twice if need be: Ctrl-C may come between any two lines.
    bench = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        bench.mkdir()
        draft = bench / "new"
        draft.mkdir()
        yield draft
        _open_to_others(draft, bench)
        if before is None:
            _put(draft, folder)
        else:
            _replace(folder, draft, bench / "old", before)
        shutil.rmtree(bench, ignore_errors=True)
    except BaseException:
        _clear(bench, made)
        raise


def _checked(folder: Path, overwrite: bool) -> Stamp | None:
    """What is to be replaced; None if nothing but an empty folder may be in the way."""
    place = next(place for place in (folder, *folder.parents) if place.exists())
    if not place.is_dir():
        which = "a file" if place == folder else f"below the file {str(place)!r}"
        raise OptionError(f"folder is {str(folder)!r}, which is {which}; allowed: a new or an empty folder")
    if not folder.exists() or not any(folder.iterdir()):
        return None
    if not overwrite:
        raise OptionError(
            f"folder is {str(folder)!r}, which is not empty; allowed: a new or an empty folder, "
            "or any with overwrite=True"
        )
    return _stamp(folder)


def _stamp(folder: Path) -> Stamp:
    """Tells a folder from another one, and whether an entry of it came, went or was written to."""
    entries = ((entry.name, entry.lstat()) for entry in folder.iterdir())
    facts = frozenset((name, facts.st_ino, facts.st_mtime_ns) for name, facts in entries)
    return folder.stat().st_dev, folder.stat().st_ino, facts


def _put(draft: Path, folder: Path) -> None:
    """Rename onto nothing or onto an empty folder; the system refuses anything else in one step."""
    try:
        if os.name == "nt" and folder.exists():
            folder.rmdir()
        draft.rename(folder)
    except OSError as error:
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            raise
        raise _taken(folder) from error


def _replace(folder: Path, draft: Path, old: Path, before: Stamp) -> None:
    """Put `draft` in the place of `folder`; if that fails the old folder is back in place."""
    try:
        folder.rename(old)
        if _stamp(old) != before:
            raise _taken(folder)
        _put(draft, folder)
    except BaseException as error:
        if isinstance(error, FileNotFoundError) and not old.exists():
            return _put(draft, folder)  # somebody cleared the old folder away
        if old.exists():
            old.rename(folder)
        raise


def _taken(folder: Path) -> OptionError:
    return OptionError(
        f"folder is {str(folder)!r}, which somebody else wrote to meanwhile; nothing of it was touched: "
        "pass another folder, or run again"
    )


def _clear(bench: Path, made: list[Path]) -> None:
    """Remove the draft and the parents that were made for it; an old folder that has no place stays."""
    if (bench / "old").exists():
        shutil.rmtree(bench / "new", ignore_errors=True)
    else:
        shutil.rmtree(bench, ignore_errors=True)
    for parent in made:
        with suppress(OSError):  # somebody else uses it by now
            parent.rmdir()


def _open_to_others(draft: Path, bench: Path) -> None:
    """Give every file the mode that the umask asks for: safetensors writes for the owner alone (0600)."""
    probe = bench / "mode"
    probe.touch()
    mode = probe.stat().st_mode & 0o777
    for path in draft.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(mode)
