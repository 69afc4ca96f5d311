"""A report: one HTML file with every chart and number, which opens anywhere and asks nobody for anything."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence

from lmms_topoprune.comparison import charts, page, tables
from lmms_topoprune.comparison.compare import OVERALL, Comparison
from lmms_topoprune.comparison.results import Run
from lmms_topoprune.plan import PruningPlan


def report(
    comparison: Comparison,
    runs: Sequence[Run],
    title: str = "Pruning report",
    similarities: Mapping[str, Sequence[Sequence[float]]] | None = None,
) -> str:
    """The report's HTML.

    Args:
        comparison: what `compare` made of the runs.
        runs: the same runs; their plans are shown.
        title: heading of the page.
        similarities: criterion -> (S, S) similarity of states, drawn as heat maps.
    """
    order = {row.label: place for place, row in enumerate(comparison.rows)}
    known = sorted((run for run in runs if run.label in order), key=lambda run: order[run.label])
    plans = [(run.label, run.plan) for run in known if run.plan is not None]
    pruned = [(label, plan) for label, plan in plans if plan.dropped]
    sections = [
        ("leaderboard", "Leaderboard", leaderboard(comparison)),
        ("retention", "Retention against sparsity", _scrolling(charts.retention_chart(comparison))),
        ("speed", "Quality against speed", _scrolling(charts.pareto_chart(comparison))),
        ("layers", "Which layers go", _scrolling(charts.layer_strips(_by_criterion(pruned)))),
        ("scores", "Layer scores", _scrolling(charts.score_curves(pruned))),
        ("similarity", "How alike the states are", _heat_maps(similarities or {})),
        ("provenance", "Provenance", provenance(known)),
    ]
    return page.document(title, summary(comparison), [s for s in sections if s[2]])


def _by_criterion(plans: Sequence[tuple[str, PruningPlan]]) -> list[tuple[str, PruningPlan]]:
    return sorted(plans, key=lambda entry: (entry[1].criterion, len(entry[1].dropped), entry[0]))


def _scrolling(content: str) -> str:
    return f'<div class="wide" tabindex="0">{content}</div>' if content else ""


def _heat_maps(similarities: Mapping[str, Sequence[Sequence[float]]]) -> str:
    return "".join(charts.heat_map(name, values) for name, values in similarities.items())


def summary(comparison: Comparison) -> str:
    """What a reader in a hurry needs: the best pruned run, and how much of the rest is noise."""
    pruned = charts.pruned(comparison)
    if not pruned:
        return f"{len(comparison.rows)} runs on {len(comparison.tasks)} tasks; none of them is pruned."
    best, dense = pruned[0], comparison.rows[0]
    lost = [row for row in pruned if row.overall.difference_interval.high < 0]
    ours, theirs, chance = (
        tables.percent(x) for x in (best.overall.score, dense.overall.score, best.overall.chance)
    )
    return (
        f"{len(comparison.rows)} runs on {len(comparison.tasks)} tasks. The best pruned run is {best.label} "
        f"with {ours} % overall (dense: {theirs} %, chance: {chance} %). "
        f"{len(lost)} of {len(pruned)} pruned runs are worse than {comparison.reference} by more than noise "
        "(95 % interval of the paired difference)."
    )


def leaderboard(comparison: Comparison) -> str:
    """The table, sortable by every column and filtered by a text field."""
    head = "".join(
        f'<th scope="col" aria-sort="none"><button type="button">{html.escape(text)}</button></th>'
        for text in tables.headings(comparison)
    )
    rows = []
    for row in comparison.rows:
        first, *rest = (html.escape(text) for text in tables.cells(comparison, row))
        cells = "".join(f"<td>{text}</td>" for text in rest)
        rows.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
    return (
        '<p><label>Show runs with <input id="filter" type="search" placeholder="topology"></label> '
        '<output id="shown" aria-live="polite"></output></p>'
        f'<p id="explained">{html.escape(tables.caption(comparison))}</p>'
        '<div class="wide" tabindex="0"><table id="board" aria-describedby="explained">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        f"{_by_task(comparison)}"
    )


def _by_task(comparison: Comparison) -> str:
    """Every task's score with its interval, folded away."""
    names = [*comparison.tasks, OVERALL]
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in ("run", *names))
    body = "".join(
        f'<tr><th scope="row">{html.escape(row.label)}</th>'
        + "".join(
            f"<td>{tables.percent(row.cells[name].score)} "
            f"<small>({tables.interval(row.cells[name].score_interval)})</small></td>"
            for name in names
        )
        + "</tr>"
        for row in comparison.rows
    )
    return (
        "<details><summary>Scores of every task with 95 % intervals</summary>"
        f'<div class="wide" tabindex="0"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
        "</details>"
    )


def provenance(runs: Sequence[Run]) -> str:
    """Each run's plan and setting as JSON, folded away."""
    parts = []
    for run in runs:
        plan = None if run.plan is None else run.plan.to_json()
        text = json.dumps({"results": run.path.name, "facts": run.facts, "plan": plan}, indent=2, default=str)
        parts.append(
            f"<details><summary>{html.escape(run.label)}</summary><pre>{html.escape(text)}</pre></details>"
        )
    return "".join(parts)
