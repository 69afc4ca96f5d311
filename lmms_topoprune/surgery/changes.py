"""Changes: new values for entries of objects' dictionaries, all undoable."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from lmms_topoprune.surgery.meta_model import MISSING


@dataclass(frozen=True)
class Change:
    """A new value for one entry of one object's dictionary; MISSING stands for no entry.

    Attributes:
        entries: the dictionary, such as vars(module).
        key: the entry.
        make: makes the new value, when the change is applied.
    """

    entries: dict[str, Any]
    key: str
    make: Callable[[], Any]

    def apply(self) -> Callable[[], None]:
        """Set the entry and return what sets it back."""
        value, old = self.make(), self.entries.get(self.key, MISSING)
        _set(self.entries, self.key, value)
        return lambda: _set(self.entries, self.key, old)


def apply_all(changes: Iterable[Change]) -> list[Callable[[], None]]:
    """Apply all changes or none, and return what undoes them, to be called from the last to the first."""
    undo: list[Callable[[], None]] = []
    try:
        for change in changes:
            undo.append(change.apply())
    except BaseException:
        for step in reversed(undo):
            step()
        raise
    return undo


def set_to(entries: dict[str, Any], key: str, value: Any) -> Change:
    return Change(entries, key, lambda: value)


def _set(entries: dict[str, Any], key: str, value: Any) -> None:
    if value is MISSING:
        entries.pop(key, None)
    else:
        entries[key] = value
