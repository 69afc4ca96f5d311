"""Do the settings, plans and results in a sweep's folder belong together?

Everything in the folder may have been copied, edited or made by another sweep since. What does not belong is
named; a sweep that is called again makes it anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from lmms_topoprune._util import files
from lmms_topoprune._util.checked_files import checked, read_object
from lmms_topoprune.errors import InputError, shown
from lmms_topoprune.plan import PruningPlan, format_layers
from lmms_topoprune.results.reading import find_results, plan_beside

SCHEMA = "topoprune-sweep/1"
KEPT = "sweep_settings.json"
"""Beside every evaluation of a sweep: what it was made with."""
SAME = ("model_args", "fingerprint", "tasks", "limit")
"""Settings that results tell, whatever became of the file that holds them."""


class Settings(BaseModel):
    """What all cells of a sweep share, as sweep.json holds it; older sweeps may hold less."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())

    model: str | None = None
    model_args: str | None = None
    fingerprint: str | None = None
    dtype: str | None = None
    batch_size: int | None = None
    tasks: list[str] | None = None
    limit: float | None = None
    options: dict[str, Any] | None = None


def read_settings(path: Path) -> dict[str, Any]:
    """The settings in sweep.json.

    Raises:
        InputError: it cannot be read, or a field is malformed (named).
    """
    value = read_object(path)
    if value.get("schema") not in (None, SCHEMA):
        raise InputError(f"{str(path)!r} has schema {shown(value['schema'])}; this version reads {SCHEMA!r}")
    checked(
        Settings,
        {name: v for name, v in value.items() if name != "schema"},
        path,
        "file of a sweep's settings",
    )
    return value


def foreign_plan(
    path: Path, plan: PruningPlan, cell: str, settings: Mapping[str, Any], expected: Mapping[str, Any]
) -> str:
    """Why a cell's plan is not this sweep's; empty if it is.

    Args:
        path: its file.
        plan: what it holds.
        cell: whose plan it should be.
        settings: of the sweep; empty if unknown.
        expected: options that the cell asks for; empty if unknown.
    """
    known = settings.get("fingerprint")
    if known is not None and plan.fingerprint != known:
        return f"{str(path)!r} is a plan for another model"
    told = (json.loads(files.read_text(path)).get("run") or {}).get("cell")
    if told is not None and told != cell:
        return f"{str(path)!r} is the plan of cell {told!r}"
    if cell == "dense" and plan.dropped:
        return f"{str(path)!r} drops layers {format_layers(plan.dropped)}; the dense model has all"
    for name, value in expected.items():
        found = plan.criterion if name == "criterion" else plan.parameters.get(name, value)
        if (found or 0) != (value or 0):  # a threshold has sparsity 0, or none
            return f"{str(path)!r} is a plan with {name} {found!r}, not {value!r}"
    return ""


def foreign_results(folder: Path, plan: PruningPlan, settings: Mapping[str, Any]) -> str:
    """Why the results in a folder are not those of a plan in this sweep; empty if they are.

    Raises:
        InputError: they cannot be read.
    """
    (path,) = find_results(folder)[:1]
    made = plan_beside(path)
    if made is not None:
        for what, ours, theirs in (
            ("layers", plan.dropped, made.dropped),
            ("model", plan.fingerprint, made.fingerprint),
            ("repair", _digest(plan.repair), _digest(made.repair)),
            ("healing", _digest(plan.heal), _digest(made.heal)),
        ):
            if ours != theirs:
                return f"{str(folder)!r} holds the results of another {what.rstrip('s')} than its plan's"
    told = told_by_results(path)
    for name in SAME:
        if name in settings and name in told and told[name] != settings[name]:
            return f"{str(folder)!r} was evaluated with {name} {told[name]!r}, not {settings[name]!r}"
    return ""


def told_by_results(path: Path) -> dict[str, Any]:
    """Settings of a sweep as one of its results files tells them, or the file that a sweep keeps beside it.

    Raises:
        InputError: a file is malformed.
    """
    kept = path.parent / KEPT if (path.parent / KEPT).exists() else path.parent.parent / KEPT
    if kept.exists():
        return read_settings(kept)
    config = read_object(path).get("config") or {}
    made = plan_beside(path)
    found: dict[str, Any] = {} if made is None else {"fingerprint": made.fingerprint}
    if "limit" in config:
        found["limit"] = config["limit"]
    if isinstance(config.get("model_args"), str) and not (made and made.dropped):
        found["model_args"] = config["model_args"]
    return found


def _digest(facts: Mapping[str, Any]) -> str:
    return files.digest(dict(facts)) if facts else ""
