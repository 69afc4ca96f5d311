"""A run as one small file: unit scores without texts, fit to be kept in a repository."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, Field, FiniteFloat, model_validator

from lmms_topoprune._util.checked_files import checked, read_object, understood
from lmms_topoprune._util.files import write
from lmms_topoprune.errors import InputError, unknown
from lmms_topoprune.plan import PruningPlan
from lmms_topoprune.plan_schema import problem
from lmms_topoprune.results.reading import RESULTS, Run, read_run
from lmms_topoprune.results.scores import UnitScores

SCHEMA = "topoprune-baseline/2"
EARLIER = "topoprune-baseline/1"
"""Its digests of documents and prompts were made another way; see `settings.earlier_facts`."""


def save_baseline(run: Run, path: Path | str) -> None:
    """Write a run's unit scores, facts and plan.

    Raises:
        InputError: the file cannot be written; nothing was overwritten.
    """
    tasks = {
        task: {name: getattr(s, name) for name in _Scores.model_fields} | {"scores": s.scores.tolist()}
        for task, s in run.tasks.items()
        if s.units
    }
    value = {
        "schema": SCHEMA,
        "label": run.label,
        "tasks": tasks,
        "facts": run.facts,
        "plan": None if run.plan is None else run.plan.to_json(),
    }
    write(Path(path), json.dumps(value) + "\n")


def read_baseline(path: Path | str, tasks: Collection[str] = (), metric: str | None = None) -> Run:
    """Read what `save_baseline` wrote, or any result folder of a single run.

    Args:
        path: the file or the folder.
        tasks: the tasks to read; all by default.
        metric: "metric" or "metric,filter" to score a folder's results by; a file has its own.

    Raises:
        InputError: the file cannot be read, is cut short, damaged, of another schema or without a task.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"baseline {str(path)!r} does not exist; --save-baseline makes one")
    if path.is_dir() or path.name.endswith(RESULTS):
        return read_run(path, tasks, metric)
    value = read_object(path)
    schema = value.get("schema")
    if schema not in (SCHEMA, EARLIER):
        raise InputError(f"baseline {str(path)!r} is no file of `topoprune regress --save-baseline`")
    found = checked(_Baseline, value, path, "baseline")
    for task in tasks:
        if task not in found.tasks:
            raise unknown("task", task, found.tasks)
    left_out = [f" of {task}" for task in found.tasks if tasks and task not in tasks]
    facts = {name: value for name, value in found.facts.items() if not name.endswith(tuple(left_out))}
    exam = ("documents of", "prompts of")
    earlier = {f"earlier {n}": v for n, v in facts.items() if n.startswith(exam)}
    kept = {n: v for n, v in facts.items() if not n.startswith(exam)} | earlier
    with understood(path, "baseline"):
        return Run(
            path=path,
            label=found.label,
            tasks={t: scores.unit_scores() for t, scores in found.tasks.items() if not tasks or t in tasks},
            reported={},
            facts=facts if schema == SCHEMA else kept,
            plan=_plan(found.plan),
            cost={},
        )


class _Scores(BaseModel):
    """Unit scores of one task, as a file holds them."""

    metric: str
    units: list[str] = Field(min_length=1)
    scores: list[FiniteFloat]
    chance: FiniteFloat
    strata: list[str] = []
    clusters: list[str] = []
    own_scale: bool = False
    task: str = ""

    @model_validator(mode="after")
    def _of_one_length(self) -> _Scores:
        for name in ("scores", "strata", "clusters"):
            values = getattr(self, name)
            if len(values) != len(self.units) and (values or name == "scores"):
                raise ValueError(f"{len(values)} {name} for {len(self.units)} units")
        if not self.own_scale and not all(0 <= score <= 1 for score in self.scores):
            raise ValueError("scores outside of 0..1")
        return self

    def unit_scores(self) -> UnitScores:
        return UnitScores(
            metric=self.metric,
            units=tuple(self.units),
            scores=np.array(self.scores, dtype=float),
            chance=self.chance,
            strata=tuple(self.strata),
            clusters=tuple(self.clusters),
            own_scale=self.own_scale,
            task=self.task,
        )


class _Baseline(BaseModel):
    """The file; what else it holds is for later versions."""

    label: str
    tasks: dict[str, _Scores]
    facts: dict[str, Any]
    plan: dict[str, Any] | None


def _plan(entry: dict[str, Any] | None) -> PruningPlan | None:
    """The plan without what only its own file needs."""
    if entry is None:
        return None
    if wrong := problem(entry):
        raise ValueError(f"its plan {wrong}")
    fields = {k: v for k, v in entry.items() if k in PruningPlan.__dataclass_fields__ and k != "stages"}
    scores = fields.get("scores")
    lists = {"dropped": tuple(fields["dropped"]), "scores": None if scores is None else tuple(scores)}
    plan = PruningPlan(**{**fields, **lists})
    if plan.hash != entry["hash"]:
        raise ValueError("a plan with its own hash")
    return plan
