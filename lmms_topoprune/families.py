"""Families, and the models that lmms-eval gets to know: a criterion for a family. Imports no torch.

Families come from plugin.toml, from entry points of other packages (group lmms_topoprune.families), and from
the TOML files that the environment variable TOPOPRUNE_FAMILIES names. What is broken is named in `problems`
and takes nothing else down.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from lmms_topoprune._util import files
from lmms_topoprune._util.references import load
from lmms_topoprune.errors import InputError, TopopruneError, nearest, shown
from lmms_topoprune.registry import (
    DENSE,
    criterion_names,
    declarations,
    declared_by,
    entry_points,
)

OPEN = "topopruned"
"""Prefix of the models whose criterion `criterion=` may choose."""
VARIABLE = "TOPOPRUNE_FAMILIES"
"""Files of further families, joined as in PATH; read whenever lmms-eval asks for this package's models."""


@dataclass(frozen=True)
class Family:
    """Models that one wrapper of lmms-eval runs.

    Attributes:
        name: ends the names of its models.
        wraps: id of the lmms-eval model it builds on.
        generation: "module:class" or "file.py:class" of a mixin that answers requests; None for the guarded
            loop of the wrapped class.
    """

    name: str
    wraps: str
    generation: str | None = None


@dataclass(frozen=True)
class Registered:
    """One model: a criterion for a family.

    Attributes:
        name: what the user passes as --model, such as topopruned_llava.
        criterion: its name; "dense" deletes nothing.
        family: its family's name.
        wraps, generation: as of its family.
    """

    name: str
    criterion: str
    family: str
    wraps: str
    generation: str | None = None

    @property
    def takes_criterion(self) -> bool:
        """Whether `criterion=` may name another one."""
        return self.name.startswith(f"{OPEN}_")


def families() -> dict[str, Family]:
    """Every family by name; what is broken is left out and named in `problems`."""
    return dict(_families(os.environ.get(VARIABLE, ""))[0])


def problems() -> list[str]:
    """A sentence for every family that is declared somewhere and cannot be used."""
    return list(_families(os.environ.get(VARIABLE, ""))[1])


def _tables(path: str) -> list[tuple[str, Any, str]]:
    """(name, what is told of it, where) of every table [families.NAME] in a file.

    Raises:
        InputError: the file cannot be read, or has no such table.
    """
    tables = files.read_toml(Path(path)).get("families")
    if not isinstance(tables, dict) or not tables:
        raise InputError(f"{path!r} declares no families; allowed: at least one table [families.NAME]")
    return [(name, told, f"{path}: [families.{name}]") for name, told in tables.items()]


def _family(name: str, told: Any, where: str) -> Family:
    """`told` is a Family, or its attributes, or only what it wraps."""
    if isinstance(told, Family):
        return replace(told, name=name)
    told = {"wraps": told} if isinstance(told, str) else told
    if not isinstance(told, Mapping) or not isinstance(told.get("wraps"), str):
        raise InputError(f"{where} lacks 'wraps', the id of an lmms-eval model")
    allowed = sorted({field.name for field in fields(Family)} - {"name"})
    for key in told:
        if key not in allowed:
            raise InputError(
                f"{where} has {key!r}; allowed: {', '.join(allowed)}{nearest(str(key), allowed)}"
            )
        if not isinstance(told[key], str):
            raise InputError(f"{where} has {key} = {shown(told[key])}; allowed: text")
    return Family(name, **told)


@cache
def _families(files: str) -> tuple[dict[str, Family], tuple[str, ...]]:
    """Families by name, and what is wrong with the others; `files` as in the environment variable."""
    found: dict[str, Family] = {}
    broken: list[str] = []
    for each in _sources(files):
        if isinstance(each, TopopruneError):
            broken.append(str(each))
        elif each.name in found:
            broken.append(
                f"family {each.name!r} is declared twice; the first wraps {found[each.name].wraps!r}"
            )
        else:
            found[each.name] = each
    return found, tuple(broken)


def _sources(files: str) -> Iterator[Family | TopopruneError]:
    """This package's families, those of other packages, then those of files; or why there is none."""
    for name, told in declarations()["families"].items():
        yield _family(name, told, f"plugin.toml: [families.{name}]")
    for entry in (entry for entries in entry_points("families").values() for entry in entries):
        where = f"family {entry.name!r} {declared_by(entry)}"
        try:
            yield _family(entry.name, load(entry.value, where), where)
        except TopopruneError as error:
            yield error
    for file in filter(None, files.split(os.pathsep)):
        try:
            tables = _tables(file)
        except TopopruneError as error:
            yield InputError(f"{VARIABLE} is {files!r}: {error}")
            continue
        for name, told, where in tables:
            try:
                yield _family(name, told, where)
            except TopopruneError as error:
                yield InputError(f"{VARIABLE} is {files!r}: {error}")


def listed() -> dict[str, Registered]:
    """The models that lists show: each prefix of plugin.toml's [models], for each family."""
    return _models(declarations()["models"])


def registered() -> dict[str, Registered]:
    """Every model that can be asked for: those listed, and CRITERION_pruned_FAMILY of every criterion."""
    prefixes = {f"{name}_pruned": name for name in criterion_names() if name != DENSE.name}
    return _models({**declarations()["models"], **prefixes})


def _models(prefixes: Mapping[str, str]) -> dict[str, Registered]:
    return {
        name: Registered(name, criterion, family.name, family.wraps, family.generation)
        for family in families().values()
        for prefix, criterion in prefixes.items()
        for name in [f"{prefix}_{family.name}"]
    }
