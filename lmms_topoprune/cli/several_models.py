"""`topoprune publish` and `topoprune leaderboard`: several models, several people."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lmms_topoprune.cli import shared

if TYPE_CHECKING:
    from lmms_topoprune.comparison.across_models import Model


@click.command()
@click.argument("folders", type=shared.PATH, nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    type=shared.PATH,
    default="published.json",
    show_default=True,
    help="Where the file goes.",
)
@shared.tasks_and_metric
@shared.as_json
def publish(
    folders: tuple[str, ...], output: str, tasks: tuple[str, ...], metric: str | None, as_json: bool
) -> None:
    """One small file of results, plans, fingerprints and versions, for other people's leaderboards.

    FOLDERS are as for `topoprune compare`, of one model or several, each with its dense run. The file holds
    no questions and no answers.

    \b
    Example:
      topoprune publish runs/sweep -o ours.json
      topoprune leaderboard ours.json theirs.json
    """
    from lmms_topoprune._util.escape import printable
    from lmms_topoprune._util.files import write
    from lmms_topoprune.comparison.across_models import published

    models = read_models(folders, tasks, metric)
    write(Path(output), published(models))
    names = [model.name for model in models]
    told = {"published": output, "models": names}
    click.echo(json.dumps(told) if as_json else printable(f"{', '.join(names)} published in {output}."))


def read_models(paths: Iterable[str], tasks: tuple[str, ...], metric: str | None) -> list[Model]:
    """The models of published files and of result folders, files first."""
    from lmms_topoprune.comparison.across_models import is_published, models_of, read_published
    from lmms_topoprune.sweep.run_folders import distinct, every_run

    files = [Path(path) for path in paths if is_published(Path(path))]
    folders = [path for path in paths if not is_published(Path(path))]
    runs = every_run(folders, tasks, metric) if folders else []
    return [model for file in files for model in read_published(file)] + models_of(runs, distinct)


@click.command()
@click.argument("paths", type=shared.PATH, nargs=-1, required=True)
@click.option(
    "-o", "--output", "outputs", type=shared.PATH, multiple=True, help="Also write .md or .json; repeatable."
)
@shared.tasks_and_metric
@shared.as_json
def leaderboard(
    paths: tuple[str, ...],
    outputs: tuple[str, ...],
    tasks: tuple[str, ...],
    metric: str | None,
    as_json: bool,
) -> None:
    """Several models side by side, by what each keeps of its own dense score.

    PATHS are result folders as for `topoprune compare`, of any models, each with its dense run among them,
    and files that others made with `topoprune publish`. Scores of different models are never compared.

    \b
    Example:
      topoprune leaderboard runs/llava runs/qwen theirs.json -o board.md
    """
    from lmms_topoprune._util.files import write_all
    from lmms_topoprune.comparison import across_models
    from lmms_topoprune.errors import unknown

    forms = {".md": "markdown", ".json": "json"}
    for output in outputs:
        if Path(output).suffix not in forms:
            raise unknown("output suffix", Path(output).suffix, forms)
    found = across_models.leaderboard(read_models(paths, tasks, metric))
    text = json.dumps(found.to_json(), indent=2, allow_nan=False) + "\n"
    write_all({Path(o): text if o.endswith(".json") else found.markdown() for o in outputs})
    if as_json:
        click.echo(text, nl=False)
        return
    from lmms_topoprune.cli.table import show_texts

    show_texts("Models side by side", *found.table(), found.caption())
