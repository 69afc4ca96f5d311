"""`topoprune demo`: the whole package at work on the embedded model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lmms_topoprune.cli import shared

if TYPE_CHECKING:
    from lmms_topoprune.comparison.side_by_side import Comparison
    from lmms_topoprune.results.reading import Run

CRITERIA = "zigzag_trials,zigzag_influence,block_influence,uniform,random"
QUESTIONS = 100
"""A task, unless --limit says otherwise: about a minute on two cores."""
TOLERANCE = 0.1
"""Share of the quality over chance that the verdict lets go: so few questions do not show less."""


@click.command()
@click.option(
    "--criteria",
    default=CRITERIA,
    show_default=True,
    type=shared.CRITERION,
    help="Criteria, joined by commas.",
)
@click.option(
    "--sparsity", default="0.25,0.5", show_default=True, help="Share of layers to drop; several by commas."
)
@shared.evaluated
@click.option("--samples", type=int, help="Calibration samples.  [default: 512]")
@click.option("--batch-size", default=32, show_default=True, help="Questions answered at once.")
@click.option(
    "-o",
    "--output",
    type=shared.PATH,
    default="runs/demo",
    show_default=True,
    help="Folder for plans and results.",
)
@shared.model
@shared.as_json
def command(**arguments: Any) -> None:
    """See it work: the embedded model, dense and pruned, in one table.

    lmms-eval asks a small trained vision-language model that ships with this package: whole, and with a
    quarter and with half of its decoder layers dropped: by the default, by its scores alone, by a baseline,
    evenly spaced and at random. 100 questions a task unless --limit says otherwise. Nothing is downloaded.
    It takes about a minute on two CPU cores; called again it shows the finished table at once.

    \b
    Examples:
      topoprune demo
      topoprune demo --limit -1 -o runs/all         # every question
      topoprune demo --sparsity 0.4 --criteria zigzags,random -o runs/more
      topoprune demo --model qwen2_vl --pretrained Qwen/Qwen2-VL-2B-Instruct \\
          -o runs/qwen
    """
    from lmms_topoprune.cli.sweep import finish, run

    sparsities = arguments.pop("sparsity")
    arguments["limit"] = arguments["limit"] or QUESTIONS
    folders = run(sparsities=sparsities, **arguments)
    for folder, (runs, comparison) in finish(folders, arguments["as_json"]).items():
        _show(folder, runs, comparison)


def _show(folder: Path, runs: list[Run], comparison: Comparison) -> None:
    """Quality kept beside speed and size, the verdict, and where the rest is."""
    from lmms_topoprune.cli.report import write_report
    from lmms_topoprune.cli.table import show_texts
    from lmms_topoprune.comparison.columns import dropped, interval, percent
    from lmms_topoprune.report.build import summary

    dense = comparison.rows[0].cost

    def share(own: Mapping[str, float], name: str, turned: bool = False) -> float:
        if not (own.get(name) and dense.get(name)):
            return math.nan
        return dense[name] / own[name] if turned else own[name] / dense[name]

    lines = [
        [
            row.label,
            percent(row.overall.corrected, 0),
            interval(row.overall.corrected_interval),
            f"{share(row.cost, 'latency_seconds', turned=True):.2f}",
            percent(share(row.cost, "parameters"), 0),
            dropped(row),
        ]
        for row in comparison.rows
    ]
    head = ["model", "kept", "95 % interval", "speed", "size", "dropped layers"]
    caption = (
        "Kept: percent of the dense model's quality over chance. Speed: answers a second, dense is 1. "
        "Size: percent of the parameters."
    )
    show_texts("What pruning costs", head, lines, caption)
    write_report([folder], comparison, runs, folder / "report.html", "What pruning costs", TOLERANCE)
    click.echo(summary(comparison, runs, TOLERANCE))
    click.echo(f"\nReport: {folder / 'report.html'}\nPlans:  {folder / 'plans'}")
