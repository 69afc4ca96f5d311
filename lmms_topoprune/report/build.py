"""A report: one HTML file with every figure and number, which opens anywhere and asks nobody for anything."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmms_topoprune.comparison.side_by_side import Comparison
from lmms_topoprune.plan import PruningPlan, healing_told
from lmms_topoprune.report import barcodes, layers, verdict
from lmms_topoprune.report.barcodes import similarity_figures
from lmms_topoprune.report.groups import Group, dense_row, groups, series, together
from lmms_topoprune.report.render import Section, Table, figures, page
from lmms_topoprune.report.retention import retention_figure
from lmms_topoprune.report.speed import Speed, speed_figure, speeds
from lmms_topoprune.report.tables import leaderboard
from lmms_topoprune.report.trial_chart import trial_figures
from lmms_topoprune.report.verdict import heat_figure
from lmms_topoprune.report.wrong_answers import wrong_answers
from lmms_topoprune.results.reading import Run
from lmms_topoprune.results.similarity import Shape


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


def report(
    comparison: Comparison,
    runs: Sequence[Run],
    title: str = "Pruning report",
    shapes: Mapping[str, Shape] | None = None,
    tolerance: float = verdict.TOLERANCE,
) -> str:
    """The report's HTML.

    Args:
        comparison: what `compare` made of the runs, with a row for every seed if these are to unfold.
        runs: the same runs; their plans and answers are shown.
        title: heading of the page.
        shapes: criterion -> what it saw of the states.
        tolerance: share of the quality over chance that may be lost, for the verdict.
    """
    known = _in_order(comparison, runs)
    found, names = groups(comparison), series(comparison)
    speed, size = speeds(found, known), verdict.sizes(found, known)
    reached = verdict.reaches(found, tolerance)
    quality = [retention_figure(found, names), speed_figure(found, speed, names)]
    sections = [
        _verdict(found, reached, speed, size, tolerance),
        figures("quality", "Quality kept", quality),
        *_layers(known, names, reached, shapes or {}),
        _answers(comparison, known, found),
        leaderboard(comparison),
        provenance(known),
    ]
    summary = verdict.sentence(comparison, reached, speed, size, tolerance)
    return page(title, summary, [section for section in sections if section])


def summary(comparison: Comparison, runs: Sequence[Run], tolerance: float = verdict.TOLERANCE) -> str:
    """The verdict in words, as the report begins; the arguments are the report's."""
    found, known = groups(comparison), _in_order(comparison, runs)
    speed, size = speeds(found, known), verdict.sizes(found, known)
    return verdict.sentence(comparison, verdict.reaches(found, tolerance), speed, size, tolerance)


def _in_order(comparison: Comparison, runs: Sequence[Run]) -> list[Run]:
    own = {run.label: run for run in runs}
    return [own[label] for row in together(comparison) for label in row.runs if label in own]


def _verdict(
    found: Sequence[Group],
    reached: Sequence[verdict.Reach],
    speed: Mapping[str, Speed],
    size: Mapping[str, float],
    tolerance: float,
) -> Section | None:
    figure = heat_figure(found, reached, tolerance)
    if figure is None:
        return None
    table = verdict.verdict_table(reached, speed, size, tolerance)
    return Section("verdict", "How much can go", "verdict.html", {"table": table, "figure": figure})


def _layers(
    runs: Sequence[Run],
    names: Mapping[str, int],
    reached: Sequence[verdict.Reach],
    shapes: Mapping[str, Shape],
) -> list[Section | None]:
    """The sections that show layers and what decided which of them go."""
    plans = {run.label: run.plan for run in runs if run.plan is not None and run.plan.dropped}
    strips = layers.strips(list(plans.values()))
    marked = _marked(strips, reached)
    ranks, seen = layers.ranks_figure(list(plans.values()), marked), barcodes.barcodes(shapes)
    maps = [*similarity_figures(shapes, marked), *(barcodes.profile_figure(one, strips) for one in seen)]
    images = [barcodes.persistence_figure(one) for one in seen]
    return [
        figures("layers", "Which layers go", [layers.strips_figure(strips), ranks]),
        figures("trials", "Trials", trial_figures(plans, names)),
        figures("topology", "What the criteria saw of the states", maps, folded=images),
    ]


def _marked(strips: Sequence[layers.Strip], reached: Sequence[verdict.Reach]) -> dict[str, layers.Strip]:
    """Criterion -> the strip of its largest sparsity within the tolerance, or else of its smallest."""
    wanted = {r.criterion: r.largest.dropped for r in reached if r.largest is not None}
    found: dict[str, layers.Strip] = {}
    for strip in strips:
        if strip.dropped == wanted.get(strip.criterion):
            found[strip.criterion] = strip
        found.setdefault(strip.criterion, strip)
    return found


def _answers(comparison: Comparison, runs: Sequence[Run], found: Sequence[Group]) -> Section | None:
    first = next((run for run in runs if run.label in dense_row(comparison).runs), None)
    lost = None if first is None else wrong_answers(first, {run.label: run for run in runs}, found)
    return None if lost is None else Section("answers", "Right before, wrong now", "answers.html", lost)
