"""`topoprune publish`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lmms_topoprune.cli import options

if TYPE_CHECKING:
    from lmms_topoprune.comparison.across_models import Model


@click.command()
@click.argument("folders", type=options.PATH, nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    type=options.PATH,
    default="published.json",
    show_default=True,
    help="Where the file goes.",
)
@options.tasks_and_metric
@options.as_json
def command(
    folders: tuple[str, ...], output: str, tasks: str | None, metric: str | None, as_json: bool
) -> None:
    """One small file of results, plans, fingerprints and versions, for other people's leaderboards.

    FOLDERS are as for `topoprune compare`, of one model or several, each with its dense run. The file holds
    no questions and no answers.

    \b
    Example:
      topoprune publish runs/sweep -o ours.json
      topoprune leaderboard ours.json theirs.json
    """
    from lmms_topoprune._util.output import write
    from lmms_topoprune.comparison.across_models import published

    models = read_models(folders, tasks, metric)
    write(Path(output), published(models))
    names = [model.name for model in models]
    told = {"published": output, "models": names}
    click.echo(json.dumps(told) if as_json else f"{', '.join(names)} published in {output}.")


def read_models(paths: Iterable[str], tasks: str | None, metric: str | None) -> list[Model]:
    """The models of published files and of result folders, files first."""
    from lmms_topoprune.comparison.across_models import is_published, models_of, read_published
    from lmms_topoprune.sweep.run_folders import distinct, every_run

    files = [Path(path) for path in paths if is_published(Path(path))]
    folders = [path for path in paths if not is_published(Path(path))]
    chosen = options.listed(tasks, "tasks") if tasks else ()
    runs = every_run(folders, chosen, metric) if folders else []
    return [model for file in files for model in read_published(file)] + models_of(runs, distinct)
