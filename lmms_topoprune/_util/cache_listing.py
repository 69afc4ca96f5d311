"""What the cache holds, as a list to look at and to choose from."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from lmms_topoprune._util.cache import Cache

DAMAGED = "set aside"


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
        about = json.loads(path.read_bytes())["about"]
    except (ValueError, KeyError, TypeError):
        return {"kind": DAMAGED}
    return about if isinstance(about, dict) else {"kind": DAMAGED}
