"""The part of a report that says where its numbers come from: setting, plans and files."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

from lmms_topoprune.comparison.board import TALL, scrolling
from lmms_topoprune.comparison.results import Run


def provenance(runs: Sequence[Run]) -> str:
    """What all runs share, how each was pruned, and every plan in full."""
    return f"<h3>Shared by all runs</h3>{_shared(runs)}<h3>Plans</h3>{_plans(runs)}{_files(runs)}"


def _shared(runs: Sequence[Run]) -> str:
    facts = [{**_context(run), **run.facts} for run in runs]
    names = [name for name in facts[0] if all(name in f and f[name] == facts[0][name] for f in facts)]
    return _table(
        "Setting shared by all runs", ["setting", "value"], [[n, _text(facts[0][n])] for n in names]
    )


def _context(run: Run) -> dict[str, Any]:
    """What says where a run was made, beyond what has to agree."""
    plan = {} if run.plan is None else {"model": run.plan.model, "decoder layers": run.plan.layers}
    return {**plan, "device": run.setting.get("device"), "batch size": run.setting.get("batch size")}


def _plans(runs: Sequence[Run]) -> str:
    heads = ["run", "dropped layers", "parameters", "calibration", "plan", "results file"]
    return _table("Plans", heads, [_plan(run) for run in runs], TALL)


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


def _table(name: str, heads: Sequence[str], rows: Sequence[Sequence[str]], css: str = "wide") -> str:
    top = "".join(f'<th scope="col">{html.escape(head)}</th>' for head in heads)
    body = "".join(
        f'<tr><th scope="row">{html.escape(first)}</th>'
        + "".join(f'<td class="text">{html.escape(text)}</td>' for text in rest)
        + "</tr>"
        for first, *rest in rows
    )
    return scrolling(name, f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>", css)
