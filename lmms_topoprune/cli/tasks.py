"""`topoprune tasks`."""

from __future__ import annotations

import json

import click

from lmms_topoprune._util.packaged import shared_path, task_names
from lmms_topoprune.cli import options


@click.command()
@click.option("--path", "only_path", is_flag=True, help="Print the folder alone, for --include_path.")
@options.as_json
def command(only_path: bool, as_json: bool) -> None:
    """Print the folder of the embedded tasks and list them.

    \b
    lmms-eval finds them with
        lmms-eval --include_path "$(topoprune tasks --path)" --tasks topoprune ...
    and `topoprune eval` adds that argument by itself.
    """
    folder = shared_path("tasks")
    if as_json:
        click.echo(json.dumps({"folder": str(folder), "tasks": task_names()}))
        return
    click.echo(folder)
    if not only_path:
        for name, kind in task_names().items():
            click.echo(f"  {name}" + (" (group)" if kind == "group" else ""))
