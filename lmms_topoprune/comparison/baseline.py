"""A run as one small file: unit scores without texts, fit to be kept in a repository."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from lmms_topoprune import files
from lmms_topoprune.comparison.results import Run, read_run
from lmms_topoprune.comparison.scores import UnitScores
from lmms_topoprune.errors import InputError
from lmms_topoprune.plan import PruningPlan

SCHEMA = "topoprune-baseline/1"


def save_baseline(run: Run, path: Path | str) -> None:
    """Write a run's unit scores, facts and plan.

    Raises:
        InputError: the file cannot be written; nothing was overwritten.
    """
    tasks = {
        task: asdict(s) | {"scores": s.scores.tolist(), "weights": s.weights.tolist()}
        for task, s in run.tasks.items()
    }
    value = {
        "schema": SCHEMA,
        "label": run.label,
        "tasks": tasks,
        "facts": run.facts,
        "plan": None if run.plan is None else run.plan.to_json(),
    }
    try:
        files.write_text(Path(path), json.dumps(value) + "\n")
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be written: {error.strerror}; nothing was changed") from None


def read_baseline(path: Path | str) -> Run:
    """Read what `save_baseline` wrote, or any result folder of a single run.

    Raises:
        InputError: the file cannot be read, is cut short or of another schema.
    """
    path = Path(path)
    if not path.is_file() or path.name.endswith("_results.json"):
        return read_run(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError(f"baseline {str(path)!r} cannot be read or is cut short") from None
    if not isinstance(value, dict) or value.get("schema") != SCHEMA:
        raise InputError(f"baseline {str(path)!r} is no file of `topoprune regress --save-baseline`")
    return Run(
        path=path,
        label=value["label"],
        tasks={task: _scores(entry) for task, entry in value["tasks"].items()},
        reported={},
        facts=value["facts"],
        plan=_plan(value["plan"]),
        cost={},
    )


def _scores(entry: dict[str, Any]) -> UnitScores:
    return UnitScores(
        metric=entry["metric"],
        units=tuple(entry["units"]),
        scores=np.array(entry["scores"]),
        weights=np.array(entry["weights"]),
        chance=entry["chance"],
    )


def _plan(entry: dict[str, Any] | None) -> PruningPlan | None:
    if entry is None:
        return None
    names = ("model", "fingerprint", "layers", "criterion", "parameters", "calibration", "versions")
    return PruningPlan(**{name: entry[name] for name in names}, dropped=tuple(entry["dropped"]))
