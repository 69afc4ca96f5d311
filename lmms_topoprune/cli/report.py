"""`topoprune report`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lmms_topoprune.cli import shared

if TYPE_CHECKING:
    from lmms_topoprune.comparison.side_by_side import Comparison
    from lmms_topoprune.results.reading import Run


@click.command()
@click.argument("folders", type=shared.PATH, nargs=-1, required=True)
@click.option(
    "-o", "--output", type=shared.PATH, default="report.html", show_default=True, help="Where the page goes."
)
@click.option("--title", default="Pruning report", show_default=True, help="Heading of the page.")
@click.option("--dense", help="Label of the run that retention refers to; found by itself if left out.")
@click.option("--reference", help="Label of the run the test refers to.  [default: the dense one]")
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 100),
    default=5.0,
    show_default=True,
    help="Percent of the quality over chance that may be lost, for the verdict.",
)
@click.option("--force", is_flag=True, help="Compare the common documents of runs that differ otherwise.")
@shared.tasks_and_metric
@shared.as_json
def command(
    folders: tuple[str, ...],
    output: str,
    title: str,
    dense: str | None,
    reference: str | None,
    tolerance: float,
    force: bool,
    tasks: tuple[str, ...],
    metric: str | None,
    as_json: bool,
) -> None:
    """One HTML file with plots and tables that opens anywhere.

    FOLDERS are as for `topoprune compare`. The page begins with the verdict: how many layers each criterion
    may drop within the tolerance, and what that is worth. Then quality against sparsity and speed, the
    layers that go and why, documents that the dense model has right and a pruned one wrong, the leaderboard,
    and every plan. It loads nothing from anywhere, works in the dark, on a phone, on paper and with a screen
    reader, and saves its figures as SVG and their numbers as CSV.

    \b
    Example:
      topoprune report runs/sweep -o report.html
    """
    from lmms_topoprune.comparison.side_by_side import compare
    from lmms_topoprune.sweep.run_folders import read_runs

    runs = read_runs(folders, tasks, metric)
    comparison = compare(runs, dense=dense, reference=reference, force=force, every_seed=True)
    write_report(folders, comparison, runs, output, title, tolerance / 100)
    click.echo(
        json.dumps({"report": output, "runs": len(runs)}) if as_json else f"Report written to {output}."
    )


def write_report(
    folders: Sequence[str | Path],
    comparison: Comparison,
    runs: Sequence[Run],
    output: str | Path,
    title: str,
    tolerance: float,
) -> None:
    """The page about runs; what criteria saw of the states is read from those folders that are sweeps."""
    from lmms_topoprune._util.files import write
    from lmms_topoprune.report.build import report
    from lmms_topoprune.sweep.folder import SweepFolder, sweeps_at

    shapes = {
        name: shape
        for folder in folders
        for sweep in sweeps_at(folder)
        for name, shape in SweepFolder(sweep).shapes().items()
    }
    write(Path(output), report(comparison, runs, title, shapes, tolerance))
