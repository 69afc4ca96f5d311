"""`topoprune tasks`."""

from __future__ import annotations

import json
import re

import click

from lmms_topoprune._util.packaged import shared_path
from lmms_topoprune.cli import options


def tasks() -> dict[str, str]:
    """Name of every embedded task or group -> "task" or "group"; read without importing lmms-eval."""
    found = {}
    for path in sorted(shared_path("tasks").rglob("*.yaml")):
        name = re.search(r"^(task|group):\s*[\"']?([\w-]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        if name and not path.name.startswith("_"):
            found[name[2]] = name[1]
    return found


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
        click.echo(json.dumps({"folder": str(folder), "tasks": tasks()}))
        return
    click.echo(folder)
    if not only_path:
        for name, kind in tasks().items():
            click.echo(f"  {name}" + (" (group)" if kind == "group" else ""))
