"""A folder of JSON entries that many processes may use at once and that never grows without bound."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypeVar

import platformdirs

from lmms_topoprune._util import files
from lmms_topoprune._util.files import locked

DAMAGED = "set aside"
Found = TypeVar("Found")


@dataclass(frozen=True)
class Entry:
    """One file of the cache.

    Attributes:
        path: the file.
        kind: "scores", "calibration" (what is known of a calibration set) or "set aside" (damaged).
        model: name or path the model was loaded from; empty if the file does not say it.
        criterion: whose scores; empty for other kinds.
        size: bytes.
        age: seconds since it was written or last used.
    """

    path: Path
    kind: str
    model: str
    criterion: str
    size: int
    age: float

    @classmethod
    def of(cls, path: Path) -> Entry | None:
        """None if the file is gone or cannot be read."""
        try:
            facts, about = path.stat(), {"kind": DAMAGED}
            if path.suffix == ".json":
                about = _about(path)
        except OSError:
            return None
        kind, model, criterion = (str(about.get(name, "")) for name in ("kind", "model", "criterion"))
        return cls(path, kind, model, criterion, facts.st_size, max(0.0, time.time() - facts.st_mtime))

    def matches(self, model: str | None, older_than: float) -> bool:
        """Whether its model's name fits the pattern (* and ?) and it is at least so many seconds old."""
        return (model is None or fnmatch(self.model, model)) and self.age >= older_than

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "path": str(self.path), "age": round(self.age, 3)}


def listing(cache: Cache) -> list[Entry]:
    """Every file of the cache, the one used last first."""
    found = (Entry.of(path) for path in (*cache.entries(), *cache.set_aside()))
    return sorted((entry for entry in found if entry is not None), key=lambda entry: entry.age)


def _about(path: Path) -> dict[str, Any]:
    """What an entry says of itself; a damaged one is found out when it is used."""
    try:
        about = json.loads(files.read_bytes(path))["about"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {"kind": DAMAGED}
    return about if isinstance(about, dict) else {"kind": DAMAGED}


log = logging.getLogger(__name__)

SCHEMA = "topoprune-scores/2"
VARIABLE = "TOPOPRUNE_CACHE"
OFF = ("", "0", "off", "false", "no")
LIMIT = 256 * 2**20
WAIT = 300.0  # seconds that a process waits for another one to compute the same
DAY = 86400.0


def default_folder() -> Path | None:
    """Where scores are kept: $TOPOPRUNE_CACHE ("off" for nowhere), else the platform's cache folder."""
    asked = os.environ.get(VARIABLE)
    if asked is not None and asked.lower() in OFF:
        return None
    try:
        if asked is None:
            # Where nobody is at home platformdirs makes up a folder in the working directory.
            _ = os.environ.get("XDG_CACHE_HOME") or Path.home()
            return Path(platformdirs.user_cache_dir("topoprune", appauthor=False, opinion=False))
        return Path(asked).expanduser()
    except RuntimeError as error:  # no such user, or one without a home, as in some containers
        log.warning("scores are not cached: %s", error)
        return None


@dataclass(frozen=True)
class Cache:
    """Entries by key. Nothing that goes wrong here stops a run: it is computed again.

    An entry is written to a temporary name and renamed, so a reader sees all of it or none. Processes
    that need the same entry at the same time wait for the first of them; where they cannot wait, they
    write the same one.

    Attributes:
        folder: where the entries are; None keeps nothing.
        limit: bytes above which the entries used longest ago are deleted.
    """

    folder: Path | None
    limit: int = LIMIT

    @classmethod
    def default(cls) -> Cache:
        return cls(default_folder())

    def get(self, key: Any, read: Callable[[Any], Found]) -> Found | None:
        """What is kept for that key, or None.

        Args:
            key: any JSON value.
            read: makes what is wanted of the JSON value; one that it fails on is damaged, like half an entry.
        """
        path = self._path(key)
        data = None if path is None else _read(path)
        if path is None or data is None:
            return None
        try:
            entry = json.loads(data)
            if (
                entry["schema"] == SCHEMA
                and entry["key"] == key
                and entry["digest"] == files.digest(entry["value"])
            ):
                found = read(entry["value"])
                _touch(path)
                return found
        except (ValueError, KeyError, TypeError, RecursionError):
            pass
        _set_aside(path)
        return None

    def put(self, key: Any, value: Any, about: Mapping[str, str] | None = None) -> None:
        """Keep a JSON value; where that is impossible, warn and go on.

        Args:
            key: any JSON value.
            value: what `get` returns for that key.
            about: what a list of entries says: "kind", "model", "criterion".
        """
        path = self._path(key)
        if path is None:
            return
        entry = {"schema": SCHEMA, "about": dict(about or {}), "key": key, "digest": files.digest(value)}
        try:
            files.write_bytes(path, json.dumps({**entry, "value": value}, allow_nan=False).encode())
            self._shrink(path)
        except OSError as error:
            log.warning("scores are not cached: %s: %s", path, error.strerror or error)

    @contextmanager
    def alone(self, key: Any) -> Iterator[None]:
        """Inside, no other process of this machine is between looking for this entry and keeping it.

        After five minutes of waiting, or where files cannot be locked, another one may be.
        """
        path = self._path(key)
        if path is None:
            yield
            return
        with locked(path.with_suffix(".lock"), WAIT):
            yield

    def entries(self) -> list[Path]:
        """The entries' files, those used longest ago first."""
        found = [(age, path) for path in self._files("*.json") if (age := _age(path)) is not None]
        return [path for _, path in sorted(found)]

    def set_aside(self) -> list[Path]:
        """Files that were entries and could not be trusted."""
        return list(self._files("*.corrupt"))

    def clear(self, paths: Iterable[Path] | None = None) -> int:
        """Delete these files, by default all entries and what was set aside; returns how many went."""
        if paths is None:
            paths = [*self.entries(), *self.set_aside(), *self._files(".*.tmp")]
        return sum(_unlinked(path) for path in paths)

    def _path(self, key: Any) -> Path | None:
        return None if self.folder is None else self.folder / f"{files.digest([SCHEMA, key])}.json"

    def _files(self, pattern: str) -> Iterator[Path]:
        with suppress(OSError):  # a folder that may not be looked into
            if self.folder is not None and self.folder.is_dir():
                yield from self.folder.glob(pattern)

    def _shrink(self, newest: Path) -> None:
        """Delete what was used longest ago until the rest fits, and what processes that were killed left."""
        found = [(_age(path) or 0.0, path) for path in (*self.entries(), *self.set_aside())]
        sizes = {path: _size(path) for _, path in sorted(found)}
        total = sum(sizes.values())
        for path, size in sizes.items():
            if total > self.limit and path != newest:
                total -= size
                _unlinked(path)
        for path in (*self._files(".*.tmp"), *self._files("*.lock")):
            if time.time() - (_age(path) or time.time()) > DAY:
                _unlinked(path)


def _unlinked(path: Path) -> bool:
    try:
        path.unlink()
    except OSError:  # another process was faster, or the folder is read-only
        return False
    return True


def _read(path: Path) -> bytes | None:
    """None for what is not there, or may not be read: that does not make it damaged."""
    try:
        return files.read_bytes(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        log.warning("the cached scores in %s cannot be read: %s", path, error.strerror or error)
        return None


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
