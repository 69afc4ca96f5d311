"""A folder that appears under its name only when it is whole, and replaces nothing that it was not shown."""

from __future__ import annotations

import fnmatch
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lmms_topoprune.errors import InputError, OptionError, shown

# Markers before a regular expression: compressed-tensors, GPTQ's dynamic (to include, to exclude).
_MARKERS = ("re:", "+:", "-:")
_DROP = object()


def renumber_quantization(
    settings: dict[str, Any], path: str, kept: Sequence[int], modules: Sequence[str]
) -> dict[str, Any]:
    """The settings with every name and pattern in terms of the pruned model.

    bitsandbytes' llm_int8_skip_modules, modules_to_not_convert of AWQ, FP8 and others, compressed-tensors'
    ignore and targets, GPTQ's dynamic and whatever else names modules: all strings, keys included, are
    looked at. One that names layers is renumbered, and the result is checked on the names of all modules:
    each kept layer has to be matched as it was.

    Args:
        settings: quantization_config of the dense model; not changed.
        path: name of the list of decoder layers, such as "model.language_model.layers".
        kept: layers that stay, ascending, counted from 0 in the dense model.
        modules: names of all modules of the pruned model.

    Raises:
        InputError: a pattern cannot be renumbered.
    """
    found = _Renumbering(path, kept, modules).walk(settings)
    assert isinstance(found, dict)
    return found


class _Renumbering:
    def __init__(self, path: str, kept: Sequence[int], modules: Sequence[str]) -> None:
        self.parts, self.list_name = set(path.split(".")), path.rpartition(".")[2]
        self.new = {old: new for new, old in enumerate(kept)}
        inside = [name[len(path) + 1 :].partition(".") for name in modules if name.startswith(path + ".")]
        outside = [name for name in modules if not name.startswith(path + ".")]
        # (name after the deletion, name before it)
        self.names = [(name, name) for name in outside] + [
            (f"{prefix}.{number}{dot}{rest}", f"{prefix}.{kept[int(number)]}{dot}{rest}")
            for prefix in _spellings(path)
            for number, dot, rest in inside
        ]

    def walk(self, value: Any) -> Any:
        """The same structure with renumbered strings, without entries of deleted layers alone."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list | tuple):
            return [item for item in map(self.walk, value) if item is not _DROP]
        if isinstance(value, dict):
            pairs = [(self.text(key) if isinstance(key, str) else key, item) for key, item in value.items()]
            pairs = [(key, self.walk(item)) for key, item in pairs if key is not _DROP]
            return {key: item for key, item in pairs if item is not _DROP}
        return value

    def text(self, text: str) -> Any:
        if not re.search(r"\d", text):
            return text
        wanted = [_matcher(text)(old) for _, old in self.names]
        if not any(wanted):
            return self._renumbered(text)  # no module here, but perhaps one of another engine
        for candidate in (text, self._renumbered(text)):
            if candidate is not _DROP and [_matcher(candidate)(new) for new, _ in self.names] == wanted:
                return candidate
        raise InputError(
            f"the quantization's settings name layers by {shown(text)}, which cannot be renumbered for the "
            "layers that stay; name them one by one, or quantize after the deletion"
        )

    def _renumbered(self, text: str) -> Any:
        """Every number behind the decoder's list of layers becomes the new one; _DROP if one is deleted."""
        gone = False

        def new(match: re.Match[str]) -> str:
            nonlocal gone
            before = re.findall(r"\w+", match["before"])
            if not set(before) - {"re"} <= self.parts:
                return match[0]  # another list of that name, such as the vision tower's
            number = int(match["number"])
            gone = gone or number not in self.new
            return f"{match['before']}{match['list']}{self.new.get(number, number)}"

        pattern = rf"(?P<before>(?:\w+\\?\.)*)(?P<list>{re.escape(self.list_name)}\\?\.)(?P<number>\d+)(?!\d)"
        changed = re.sub(pattern, new, text)
        if changed == text and text.startswith(_MARKERS):  # such as .*\.3\..*
            pattern = r"(?P<before>)(?P<list>\\\.)(?P<number>\d+)(?=\\\.)"
            changed = re.sub(pattern, new, text)
        return _DROP if gone else changed


def _spellings(path: str) -> list[str]:
    """The decoder's names: model.language_model in transformers 5, language_model.model in files of 4."""
    *parts, last = path.split(".")
    return list(dict.fromkeys([path, ".".join([*reversed(parts), last]), f"model.{last}", last]))


def _matcher(text: str) -> Callable[[str], bool]:
    """Whether a setting means the module of a name, as the engines read it."""
    if text.startswith(_MARKERS):
        try:
            compiled = re.compile(text.partition(":")[2])
        except re.error:
            return lambda name: False
        return lambda name: compiled.match(name) is not None
    if "*" in text:
        return lambda name: fnmatch.fnmatchcase(name, text)
    return lambda name: f".{text}." in f".{name}."


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
    """Tells a folder from another one, and whether anything below it came, went or was written to."""
    entries = ((str(entry.relative_to(folder)), entry.lstat()) for entry in folder.rglob("*"))
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
