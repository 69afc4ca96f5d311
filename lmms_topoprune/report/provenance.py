"""The part of a report that says where its numbers come from: setting, plans and files."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

from lmms_topoprune.report.leaderboard import TALL, scrolling, texts
from lmms_topoprune.results.reading import Run


def provenance(runs: Sequence[Run]) -> str:
    """What all runs share, how each was pruned, and every plan in full."""
    return f"<h3>Shared by all runs</h3>{_shared(runs)}<h3>Plans</h3>{_plans(runs)}{_files(runs)}"


def _shared(runs: Sequence[Run]) -> str:
    facts = [{**_context(run), **run.facts} for run in runs]
    names = [name for name in facts[0] if all(name in f and f[name] == facts[0][name] for f in facts)]
    rows = [[name, _text(facts[0][name])] for name in names]
    return texts("Setting shared by all runs", ["setting", "value"], rows, cell="text")


def _context(run: Run) -> dict[str, Any]:
    """What says where a run was made, beyond what has to agree."""
    plan = {} if run.plan is None else {"model": run.plan.model, "decoder layers": run.plan.layers}
    return {**plan, "device": run.setting.get("device"), "batch size": run.setting.get("batch size")}


def _plans(runs: Sequence[Run]) -> str:
    heads = ["run", "dropped layers", "parameters", "calibration", "plan", "results file"]
    return texts("Plans", heads, [_plan(run) for run in runs], TALL, "text")


def _plan(run: Run) -> list[str]:
    if run.plan is None:
        return [run.label, "none", "–", "–", "–", run.path.name]
    plan = run.plan
    return [
        run.label,
        run.dropped,
        _listed(plan.parameters),
        _listed(plan.calibration),
        plan.hash,
        run.path.name,
    ]


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_text(value)}" for name, value in values.items()) or "–"


def _text(value: Any) -> str:
    return "–" if value is None else str(value)


def _files(runs: Sequence[Run]) -> str:
    """Every plan as its file holds it, and what else is known of the run, folded away."""
    parts = []
    for run in runs:
        plan = None if run.plan is None else run.plan.to_json()
        known = {
            "results": str(run.path),
            "setting": run.setting,
            "cost": run.cost,
            "facts": run.facts,
            "plan": plan,
        }
        text = html.escape(json.dumps(known, indent=1, default=str))
        name = html.escape(run.label)
        parts.append(
            f"<details><summary>{name}</summary>{scrolling(run.label, f'<pre>{text}</pre>')}</details>"
        )
    return (
        f"<details><summary>Plan files and everything known of each run</summary>{''.join(parts)}</details>"
    )
