"""`topoprune compare`."""

from __future__ import annotations

import click

from lmms_topoprune.cli import shared


@click.command()
@click.argument("folders", type=shared.PATH, nargs=-1, required=True)
@click.option("--dense", help="Label of the run that retention refers to; found by itself if left out.")
@click.option("--reference", help="Label of the run the test refers to.  [default: the dense one]")
@click.option(
    "-o",
    "--output",
    "outputs",
    type=shared.PATH,
    multiple=True,
    help="Also write .md, .csv, .json, .html, .tex, .pdf or .svg; repeatable.",
)
@click.option("--force", is_flag=True, help="Compare the common documents of runs that differ otherwise.")
@click.option("--every-seed", is_flag=True, help="A row for every calibration seed, not their mean.")
@shared.tasks_and_metric
@click.option("--rounds", default=2000, show_default=True, help="Bootstrap rounds.")
@shared.seed
@shared.as_json
def command(
    folders: tuple[str, ...],
    dense: str | None,
    reference: str | None,
    outputs: tuple[str, ...],
    force: bool,
    every_seed: bool,
    tasks: tuple[str, ...],
    metric: str | None,
    rounds: int,
    seed: int,
    as_json: bool,
) -> None:
    """A leaderboard over result folders, with intervals and tests.

    FOLDERS are --output_path folders of lmms-eval (written with --log_samples), folders of `topoprune
    sweep`, or single results files; everything below them is read. One run has to be dense.

    Intervals come from a paired bootstrap over documents (over images where several questions share one);
    p-values from a paired sign-flip test, corrected for the number of runs. Calibration seeds make one row,
    whose interval has the noise between them too.
    A second table has latency, tokens/s, parameters, memory and the time of the calibration. Runs that
    differ in anything but their pruning are refused with the difference named.

    \b
    Examples:
      topoprune compare runs/dense runs/topology runs/cosine
      topoprune compare runs/sweep --reference "cosine 30 %" -o table.tex
    """
    from lmms_topoprune.comparison.side_by_side import compare
    from lmms_topoprune.report.tables import PICTURES, checked_targets, render, save
    from lmms_topoprune.sweep.folder import shapes_below
    from lmms_topoprune.sweep.run_folders import read_runs

    checked_targets(outputs)
    comparison = compare(
        read_runs(folders, tasks, metric),
        dense=dense,
        reference=reference,
        force=force,
        rounds=rounds,
        seed=seed,
        every_seed=every_seed,
    )
    drawn = any(output.endswith(PICTURES) for output in outputs)
    save(comparison, *outputs, shapes=shapes_below(folders) if drawn else None)
    if as_json:
        click.echo(render(comparison, "json"), nl=False)
        return
    from lmms_topoprune.cli.table import show

    show(comparison, "Leaderboard", costs=True)
