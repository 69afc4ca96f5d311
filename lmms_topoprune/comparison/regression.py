"""Is a run worse than its baseline by more than a tolerance and more than noise?

A baseline is a run as one small file: unit scores without texts, fit to be kept in a repository.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from pydantic import BaseModel, Field, FiniteFloat, model_validator

from lmms_topoprune._util import escape
from lmms_topoprune._util.checked_files import checked, read_object, understood
from lmms_topoprune._util.files import write
from lmms_topoprune.comparison.columns import interval, p_value, percent
from lmms_topoprune.comparison.comparable import differences
from lmms_topoprune.comparison.paired import LEVEL, worse
from lmms_topoprune.comparison.side_by_side import Cell, compare
from lmms_topoprune.comparison.statistics import ROUNDING
from lmms_topoprune.errors import InputError, OptionError, unknown
from lmms_topoprune.plan import PruningPlan, problem
from lmms_topoprune.results.reading import RESULTS, Run, read_run
from lmms_topoprune.results.scores import UnitScores
from lmms_topoprune.results.settings import earlier_facts

BASELINE, RUN = "baseline", "run"


@dataclass(frozen=True)
class Check:
    """One thing that was checked: a task, the mean over tasks, or the plan."""

    name: str
    passed: bool
    message: str


def regress(
    baseline: Run, run: Run, *, tolerance: float = 0.01, same_plan: bool = False, seed: int = 0
) -> tuple[list[Check], str]:
    """Compare a run with its baseline, document by document.

    A score fails if it is lower by more than `tolerance`, and the paired test has p <= 0.05. Other versions
    of packages are allowed: to guard against them is the purpose.

    Args:
        baseline: what the run is measured by.
        run: the run.
        tolerance: allowed drop of a score, in 0..1.
        same_plan: also fail if other layers are dropped than in the baseline.
        seed: seed of the bootstrap.

    Returns:
        The checks, and a Markdown table of them.

    Raises:
        OptionError: the tolerance is not in 0..1.
        InputError: the runs differ in model, prompts, documents, tasks or limit.
    """
    if not 0 <= tolerance < 1:
        raise OptionError(f"tolerance is {tolerance}; allowed: 0 <= tolerance < 1")
    # What lmms-eval reports without documents has no test, and a baseline file does not hold it.
    tested = {name: scores for name, scores in run.tasks.items() if scores.units or name in baseline.tasks}
    run = replace(run, tasks=tested)
    _check_same(baseline, run)
    pair = [replace(baseline, label=BASELINE), replace(run, label=RUN)]
    comparison = compare(pair, dense=BASELINE, force=True, seed=seed)
    rows = {row.label: {**row.cells, comparison.overall: row.overall} for row in comparison.rows}
    checks = [_check(name, cell, tolerance) for name, cell in rows[RUN].items()]
    if same_plan:
        checks.append(_plan_check(baseline, run))
    return checks, _markdown(checks, rows[BASELINE], rows[RUN], tolerance)


def _check_same(baseline: Run, run: Run) -> None:
    """Refuse to compare anything but two runs of one model on the same documents."""
    found = differences(baseline, _with_earlier_facts(run, baseline), versions=False)
    if not found:
        return
    one, other = (None if r.plan is None else r.plan.model for r in (baseline, run))
    if baseline.facts.get("weights") != run.facts.get("weights") and one and other:
        names = f"{one!r} and the run of {other!r}" if one != other else f"other weights of {one!r}"
        raise InputError(f"the baseline is of {names}: they differ in {'; '.join(found)}")
    raise InputError(f"the run and its baseline are not comparable: they differ in {'; '.join(found)}")


def _with_earlier_facts(run: Run, baseline: Run) -> Run:
    """The run with digests as a baseline of an earlier schema has them."""
    tasks = [n.partition(" of ")[2] for n in baseline.facts if n.startswith("earlier documents of ")]
    earlier = {
        f"earlier {name}": value
        for task in tasks
        if task in run.reported
        for name, value in earlier_facts(run.path, task).items()
    }
    return replace(run, facts={**run.facts, **earlier})


def _check(name: str, cell: Cell, tolerance: float) -> Check:
    passed = not worse(cell, tolerance)
    change = f"{100 * cell.difference:+.1f} points, 95 % interval {interval(cell.difference_interval)}"
    if not passed:
        reason = f"worse than the tolerance of {percent(tolerance)} points and than noise"
    elif cell.difference < -tolerance - ROUNDING:
        reason = "lower than the tolerance allows, but within noise"
    else:
        reason = "within the tolerance"
    return Check(name, passed, f"{name}: {change}: {reason}")


def _plan_check(baseline: Run, run: Run) -> Check:
    passed = baseline.dropped == run.dropped and _changes(baseline) == _changes(run)
    same = "unchanged" if passed else f"{_named(baseline)} in the baseline, {_named(run)} now"
    return Check("dropped layers", passed, f"dropped layers: {same}")


def _changes(run: Run) -> list[dict[str, Any]]:
    """What was done to the weights: repair and healing."""
    return [dict(getattr(run.plan, name, None) or {}) for name in ("repair", "heal")]


def _named(run: Run) -> str:
    repair, heal = _changes(run)
    return (
        run.dropped
        + (f" repaired by {repair.get('method')}" if repair else "")
        + (f" healed in {heal.get('steps')} steps" if heal else "")
    )


def _markdown(
    checks: Sequence[Check], before: Mapping[str, Cell], after: Mapping[str, Cell], tolerance: float
) -> str:
    lines = [
        "| | baseline | run | difference | 95 % interval | p | |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for check in checks:
        verdict = "ok" if check.passed else "**worse**"
        if check.name in after:
            cell = after[check.name]
            numbers = [
                percent(before[check.name].score),
                percent(cell.score),
                f"{100 * cell.difference:+.1f}",
            ]
            lines.append(
                f"| {escape.markdown(check.name)} | {' | '.join(numbers)} | "
                f"{interval(cell.difference_interval)} | {p_value(cell.p)} | {verdict} |"
            )
        else:
            lines.append(f"| {escape.markdown(check.message)} | | | | | | {verdict} |")
    lines.append("")
    lines.append(
        f"Scores in percent. A score fails if it drops by more than {percent(tolerance)} points, and the "
        f"paired test has a p of at most {LEVEL:g}."
    )
    return "\n".join(lines) + "\n"


def junit(checks: Sequence[Check]) -> str:
    """The checks as JUnit XML, which CI systems show as test results."""
    failures = sum(not check.passed for check in checks)
    suite = ElementTree.Element(
        "testsuite", name="topoprune regress", tests=str(len(checks)), failures=str(failures), errors="0"
    )
    for check in checks:
        case = ElementTree.SubElement(suite, "testcase", classname="topoprune.regress", name=check.name)
        if not check.passed:
            ElementTree.SubElement(case, "failure", message=check.message, type="regression")
        else:
            ElementTree.SubElement(case, "system-out").text = check.message
    ElementTree.indent(suite)
    # XML knows no control characters, not even escaped ones.
    for element in suite.iter():
        element.attrib.update({name: escape.xml(value) for name, value in element.attrib.items()})
        element.text = element.text and escape.xml(element.text)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suite, encoding="unicode") + "\n"


def github_annotations(checks: Sequence[Check]) -> str:
    """Workflow commands by which GitHub marks a run: one error a failed check."""
    failed = [check for check in checks if not check.passed]
    return "".join(
        f"::error title={escape.workflow_command(c.name, True)}::{escape.workflow_command(c.message)}\n"
        for c in failed
    )


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
