"""A report: one HTML file with every chart and number, which opens anywhere and asks nobody for anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lmms_topoprune.comparison.columns import percent
from lmms_topoprune.comparison.side_by_side import Comparison
from lmms_topoprune.plan import PruningPlan
from lmms_topoprune.report import charts, layer_charts, page, shape_charts
from lmms_topoprune.report.leaderboard import board
from lmms_topoprune.report.provenance import provenance
from lmms_topoprune.results.labels import variant
from lmms_topoprune.results.reading import Run
from lmms_topoprune.results.similarity import Shape


def report(
    comparison: Comparison,
    runs: Sequence[Run],
    title: str = "Pruning report",
    shapes: Mapping[str, Shape] | None = None,
) -> str:
    """The report's HTML.

    Args:
        comparison: what `compare` made of the runs.
        runs: the same runs; their plans are shown.
        title: heading of the page.
        shapes: criterion -> what it saw of the states; drawn as heat maps, persistence images, barcodes.
    """
    order = {row.label: place for place, row in enumerate(comparison.rows)}
    known = sorted((run for run in runs if run.label in order), key=lambda run: order[run.label])
    pruned = [(run.label, run.plan) for run in known if run.plan is not None and run.plan.dropped]
    names, bars = charts.series(comparison), shape_charts.barcodes(shapes or {})
    sections = [
        ("leaderboard", "Leaderboard", board(comparison)),
        ("retention", "Retention against sparsity", charts.retention_chart(comparison)),
        ("latency", "Quality against latency", charts.pareto_chart(comparison)),
        ("layers", "Which layers go", layer_charts.layer_strips(_by_criterion(pruned))),
        ("scores", "Layer scores", layer_charts.score_curves(pruned, names)),
        ("similarity", "How alike the states are", shape_charts.heat_maps(shapes or {})),
        ("image", "Persistence image", shape_charts.persistence_images(bars)),
        ("barcode", "Barcode", shape_charts.barcode_charts(bars)),
        ("provenance", "Plans and provenance", provenance(known)),
    ]
    return page.document(title, summary(comparison), [s for s in sections if s[2]])


def _by_criterion(plans: Sequence[tuple[str, PruningPlan]]) -> list[tuple[str, PruningPlan]]:
    return sorted(plans, key=lambda entry: (variant(entry[1]), len(entry[1].dropped), entry[0]))


def summary(comparison: Comparison) -> str:
    """What a reader in a hurry needs: the best pruned run, and how much of the rest is noise."""
    pruned = charts.pruned(comparison)
    if not pruned:
        return f"{len(comparison.rows)} runs on {len(comparison.tasks)} tasks; none of them is pruned."
    best, dense = pruned[0], comparison.rows[0]
    lost = [row for row in pruned if row.overall.difference_interval.high < 0]
    ours, theirs, chance = (
        percent(x) for x in (best.overall.score, dense.overall.score, best.overall.chance)
    )
    ties = sum(row.overall.score == best.overall.score for row in pruned) - 1
    others = f" (and {ties} more)" if ties else ""
    return (
        f"{len(comparison.rows)} runs on {len(comparison.tasks)} tasks. The best pruned run is "
        f"{best.label}{others} with {ours} % overall (dense: {theirs} %, chance: {chance} %). "
        f"{len(lost)} of {len(pruned)} pruned runs are worse than {comparison.reference} by more than noise "
        "(95 % interval of the paired difference)."
    )
