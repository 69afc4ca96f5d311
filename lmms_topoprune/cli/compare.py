"""`topoprune compare`."""

from __future__ import annotations

import click

from lmms_topoprune.cli import options


@click.command()
@click.argument("folders", type=options.PATH, nargs=-1, required=True)
@click.option("--dense", help="Label of the run that retention refers to; found by itself if left out.")
@click.option("--reference", help="Label of the run the test refers to.  [default: the dense one]")
@click.option(
    "-o",
    "--output",
    "outputs",
    type=options.PATH,
    multiple=True,
    help="Also write .md, .csv, .json or .html; repeatable.",
)
@click.option("--force", is_flag=True, help="Compare the common documents of runs that differ otherwise.")
@click.option("--rounds", default=2000, show_default=True, help="Bootstrap rounds.")
@options.seed
@options.as_json
def command(
    folders: tuple[str, ...],
    dense: str | None,
    reference: str | None,
    outputs: tuple[str, ...],
    force: bool,
    rounds: int,
    seed: int,
    as_json: bool,
) -> None:
    """A leaderboard over result folders, with intervals and tests.

    FOLDERS are --output_path folders of lmms-eval (written with --log_samples), folders of `topoprune
    sweep`, or single results files; everything below them is read. One run has to be dense.

    Intervals come from a paired bootstrap over documents (for MME and its like over images, whose two
    questions belong together); p-values from a paired sign-flip test, corrected for the number of runs.
    A second table has latency, tokens/s, parameters, memory and the time of the calibration. Runs that
    differ in anything but their pruning are refused with the difference named.

    \b
    Examples:
      topoprune compare runs/dense runs/topology runs/cosine
      topoprune compare runs/sweep --reference "cosine 30 %" -o board.md -o board.csv
    """
    from lmms_topoprune.comparison.side_by_side import compare
    from lmms_topoprune.report.tables import render, save
    from lmms_topoprune.sweep.run_folders import read_runs

    comparison = compare(
        read_runs(folders), dense=dense, reference=reference, force=force, rounds=rounds, seed=seed
    )
    save(comparison, *outputs)
    if as_json:
        click.echo(render(comparison, "json"), nl=False)
        return
    from lmms_topoprune.cli.table import show

    show(comparison, "Leaderboard", costs=True)
