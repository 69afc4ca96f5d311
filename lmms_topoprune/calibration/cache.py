"""A folder of JSON entries that many processes may use at once and that never grows without bound."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmms_topoprune import files

log = logging.getLogger(__name__)

SCHEMA = "topoprune-scores/2"
VARIABLE = "TOPOPRUNE_CACHE"
OFF = ("", "0", "off", "false", "no")
LIMIT = 256 * 2**20


def default_folder() -> Path | None:
    """Where scores are kept: $TOPOPRUNE_CACHE ("off" for nowhere), else the platform's cache folder."""
    asked = os.environ.get(VARIABLE)
    if asked is not None:
        return None if asked.lower() in OFF else Path(asked).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData/Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library/Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "topoprune"


@dataclass(frozen=True)
class Cache:
    """Entries by key. Nothing that goes wrong here stops a run: it is computed again.

    An entry is written to a temporary name and renamed, so a reader sees all of it or none, and
    processes that compute the same entry at the same time write the same one.

    Attributes:
        folder: where the entries are; None keeps nothing.
        limit: bytes above which the entries used longest ago are deleted.
    """

    folder: Path | None
    limit: int = LIMIT

    @classmethod
    def default(cls) -> Cache:
        return cls(default_folder())

    def get(self, key: Any) -> Any:
        """The value kept for that key, a JSON value, or None."""
        path = self._path(key)
        if path is None or not path.is_file():
            return None
        try:
            entry = json.loads(path.read_bytes())
            if (
                entry["schema"] == SCHEMA
                and entry["key"] == key
                and entry["digest"] == files.digest(entry["value"])
            ):
                _touch(path)
                return entry["value"]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            pass
        _set_aside(path)
        return None

    def put(self, key: Any, value: Any) -> None:
        """Keep a JSON value; where that is impossible, warn and go on."""
        path = self._path(key)
        if path is None:
            return
        entry = {"schema": SCHEMA, "key": key, "digest": files.digest(value), "value": value}
        try:
            files.write_bytes(path, json.dumps(entry, allow_nan=False).encode())
            self._shrink(path)
        except OSError as error:
            log.warning("scores are not cached: %s: %s", path, error.strerror or error)

    def entries(self) -> list[Path]:
        """The entries' files, those used longest ago first."""
        found = [(age, path) for path in self._files("*.json") if (age := _age(path)) is not None]
        return [path for _, path in sorted(found)]

    def clear(self) -> int:
        """Delete all entries and what was set aside; returns how many files went."""
        gone = [*self._files("*.json"), *self._files("*.corrupt"), *self._files(".*.tmp")]
        for path in gone:
            path.unlink(missing_ok=True)
        return len(gone)

    def _path(self, key: Any) -> Path | None:
        return None if self.folder is None else self.folder / f"{files.digest([SCHEMA, key])}.json"

    def _files(self, pattern: str) -> Iterator[Path]:
        if self.folder is not None and self.folder.is_dir():
            yield from self.folder.glob(pattern)

    def _shrink(self, newest: Path) -> None:
        sizes = {path: _size(path) for path in self.entries()}
        total = sum(sizes.values())
        for path, size in sizes.items():
            if total <= self.limit:
                break
            if path != newest:
                path.unlink(missing_ok=True)
                total -= size


def _touch(path: Path) -> None:
    try:
        os.utime(path)
    except OSError:
        return  # a read-only cache serves its entries, it just cannot note their use


def _set_aside(path: Path) -> None:
    """Move an entry that cannot be trusted out of the way, where somebody can look at it."""
    log.warning("the cached scores in %s are damaged or foreign; they are set aside and computed again", path)
    try:
        path.replace(path.with_suffix(".corrupt"))
    except OSError:
        return


def _age(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:  # another process has just deleted it
        return None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
