"""A run as one small file: unit scores without texts, fit to be kept in a repository."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from lmms_topoprune._util.malformed import read_object, understood
from lmms_topoprune._util.output import write
from lmms_topoprune.errors import InputError
from lmms_topoprune.plan import PruningPlan
from lmms_topoprune.results.reading import RESULTS, Run, read_run
from lmms_topoprune.results.scores import UnitScores

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
    write(Path(path), json.dumps(value) + "\n")


def read_baseline(path: Path | str) -> Run:
    """Read what `save_baseline` wrote, or any result folder of a single run.

    Raises:
        InputError: the file cannot be read, is cut short, damaged or of another schema.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"baseline {str(path)!r} does not exist; --save-baseline makes one")
    if path.is_dir() or path.name.endswith(RESULTS):
        return read_run(path)
    value = read_object(path)
    if value.get("schema") != SCHEMA:
        raise InputError(f"baseline {str(path)!r} is no file of `topoprune regress --save-baseline`")
    with understood(path, "baseline"):
        return Run(
            path=path,
            label=str(value["label"]),
            tasks={str(task): _scores(entry) for task, entry in value["tasks"].items()},
            reported={},
            facts=dict(value["facts"]),
            plan=_plan(value["plan"]),
            cost={},
        )


def _scores(entry: dict[str, Any]) -> UnitScores:
    found = UnitScores(
        metric=str(entry["metric"]),
        units=tuple(map(str, entry["units"])),
        scores=np.array(entry["scores"], dtype=float),
        weights=np.array(entry["weights"], dtype=float),
        chance=float(entry["chance"]),
        strata=tuple(map(str, entry.get("strata", ()))),
    )
    if not found.scores.shape == found.weights.shape == (len(found.units),) or not found.units:
        raise ValueError("as many scores and weights as units")
    if found.strata and len(found.strata) != len(found.units):
        raise ValueError("as many strata as units")
    if not ((found.scores >= 0) & (found.scores <= 1)).all():
        raise ValueError("scores in 0..1")
    return found


def _plan(entry: dict[str, Any] | None) -> PruningPlan | None:
    """The plan without what only its own file needs."""
    if entry is None:
        return None
    fields = {k: v for k, v in entry.items() if k in PruningPlan.__dataclass_fields__ and k != "stages"}
    scores = fields.get("scores")
    lists = {"dropped": tuple(fields["dropped"]), "scores": None if scores is None else tuple(scores)}
    plan = PruningPlan(**{**fields, **lists})
    if plan.hash != entry["hash"]:
        raise ValueError("a plan with its own hash")
    return plan
