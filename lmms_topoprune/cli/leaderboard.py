"""`topoprune leaderboard`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from lmms_topoprune.cli import options


@click.command()
@click.argument("paths", type=options.PATH, nargs=-1, required=True)
@click.option(
    "-o", "--output", "outputs", type=options.PATH, multiple=True, help="Also write .md or .json; repeatable."
)
@options.tasks_and_metric
@options.as_json
def command(
    paths: tuple[str, ...], outputs: tuple[str, ...], tasks: str | None, metric: str | None, as_json: bool
) -> None:
    """Several models side by side, by what each keeps of its own dense score.

    PATHS are result folders as for `topoprune compare`, of any models, each with its dense run among them,
    and files that others made with `topoprune publish`. Scores of different models are never compared.

    \b
    Example:
      topoprune leaderboard runs/llava runs/qwen theirs.json -o board.md
    """
    from lmms_topoprune._util.output import write_all
    from lmms_topoprune.cli.publish import read_models
    from lmms_topoprune.comparison.across_models import leaderboard
    from lmms_topoprune.errors import unknown

    forms = {".md": "markdown", ".json": "json"}
    for output in outputs:
        if Path(output).suffix not in forms:
            raise unknown("output suffix", Path(output).suffix, forms)
    found = leaderboard(read_models(paths, tasks, metric))
    text = json.dumps(found.to_json(), indent=2, allow_nan=False) + "\n"
    write_all({Path(o): text if o.endswith(".json") else found.markdown() for o in outputs})
    if as_json:
        click.echo(text, nl=False)
        return
    from lmms_topoprune.cli.table import show_texts

    show_texts("Models side by side", *found.table(), found.caption())
