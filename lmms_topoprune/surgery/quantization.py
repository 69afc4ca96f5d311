"""Layer numbers in a quantization's settings: names, patterns and keys that say which modules are spared."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence
from typing import Any

from lmms_topoprune.errors import InputError, shown

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
