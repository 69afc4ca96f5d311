"""Where a report's numbers come from: setting, plans and files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmms_topoprune.plan import PruningPlan, healing_told
from lmms_topoprune.report.render import Section, Table
from lmms_topoprune.results.reading import Run


@dataclass(frozen=True)
class Provenance:
    """What all runs share, how each was pruned, and everything known of each as (label, JSON)."""

    shared: Table
    plans: Table
    files: Sequence[tuple[str, str]]


def provenance(runs: Sequence[Run]) -> Section:
    content = Provenance(_shared(runs), _plans(runs), [(run.label, _file(run)) for run in runs])
    return Section("provenance", "Plans and provenance", "provenance.html", content)


def _shared(runs: Sequence[Run]) -> Table:
    facts = [{**_context(run), **run.facts} for run in runs]
    names = [name for name in facts[0] if all(name in f and f[name] == facts[0][name] for f in facts)]
    rows = [[name, _text(facts[0][name])] for name in names]
    return Table("Setting shared by all runs", ["setting", "value"], rows)


def _context(run: Run) -> dict[str, Any]:
    """What says where a run was made, beyond what has to agree."""
    plan = {} if run.plan is None else {"model": run.plan.model, "decoder layers": run.plan.layers}
    return {**plan, "device": run.setting.get("device"), "batch size": run.setting.get("batch size")}


def _plans(runs: Sequence[Run]) -> Table:
    heads = ["run", "dropped layers", "parameters", "calibration", "weights", "plan", "results file"]
    return Table("Plans", heads, [_plan(run) for run in runs])


def _plan(run: Run) -> list[str]:
    if run.plan is None:
        return [run.label, "none", "–", "–", "–", "–", run.path.name]
    plan = run.plan
    asked, seen = _listed(plan.parameters), _listed(plan.calibration)
    return [run.label, run.dropped, asked, seen, _weights(plan), plan.hash, run.path.name]


def _weights(plan: PruningPlan) -> str:
    """What was done to the weights that stayed, and what came of it."""
    if not plan.changes_weights:
        return "as they were"
    repaired = f"repair {plan.repair['method']}" if plan.repair else ""
    return "; ".join(part for part in (repaired, healing_told(plan)) if part)


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_text(value)}" for name, value in values.items()) or "–"


def _text(value: Any) -> str:
    return "–" if value is None else str(value)


def _file(run: Run) -> str:
    """The plan as its file holds it, and what else is known of the run."""
    known = {
        "results": str(run.path),
        "setting": run.setting,
        "cost": run.cost,
        "facts": run.facts,
        "plan": None if run.plan is None else run.plan.to_json(),
    }
    return json.dumps(known, indent=1, default=str)
