"""`topoprune criteria`, `models` and `tasks`: what there is, one a line."""

from __future__ import annotations

import json
from dataclasses import asdict
from textwrap import shorten

import click

from lmms_topoprune._util.packaged import shared_path, task_names
from lmms_topoprune.cli import shared

WIDTH = 80
"""Of a terminal, which a line is to fit."""


@click.command()
@shared.as_json
def criteria(as_json: bool) -> None:
    """List the criteria, one a line: the name for --criterion, and what it looks at.

    Those of other packages are among them. With --json also the paper, its address, what each reads and its
    own defaults.

    \b
    Example:
      topoprune criteria --json
    """
    from lmms_topoprune import registry
    from lmms_topoprune.options import PruningOptions

    found, default = registry.criteria().values(), PruningOptions().criterion
    if as_json:
        click.echo(json.dumps([_facts(each) for each in found]))
        return
    width = max(len(each.name) for each in found)
    for each in found:
        text = f"{each.summary} (default)" if each.name == default else each.summary
        click.echo(f"{each.name:{width}}  {shorten(text, WIDTH - width - 2, placeholder='...')}")
    for sentence in registry.problems(registry.Criterion):
        click.echo(f"topoprune: {sentence}", err=True)


def _facts(criterion: object) -> dict[str, object]:
    names = ("name", "summary", "papers", "state", "sums", "loss", "parameters", "selection", "version")
    return {name: getattr(criterion, name) for name in names} | {"defaults": dict(criterion.defaults)}  # type: ignore[attr-defined]


@click.command()
@click.option("--all", "everything", is_flag=True, help="Those of rare criteria too.")
@shared.as_json
def models(everything: bool, as_json: bool) -> None:
    """List the models for --model, one a line: the name, its criterion, and the model of lmms-eval it wraps.

    topopruned_* takes any other criterion by criterion=. Families of one's own come from a file that the
    environment variable TOPOPRUNE_FAMILIES names, or from another package. `topoprune doctor` tells which
    families work on this machine.

    \b
    Example:
      topoprune models --all
    """
    from lmms_topoprune import families

    found = families.registered() if everything else families.listed()
    if as_json:
        click.echo(json.dumps([asdict(model) for model in found.values()]))
        return
    width = max(map(len, found))
    for name, model in found.items():
        click.echo(f"{name:{width}}  {model.criterion} on {model.wraps}")
    for sentence in families.problems():
        click.echo(f"topoprune: {sentence}", err=True)


@click.command()
@click.option("--path", "only_path", is_flag=True, help="Print the folder alone, for --include_path.")
@shared.as_json
def tasks(only_path: bool, as_json: bool) -> None:
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
