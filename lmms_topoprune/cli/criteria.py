"""`topoprune criteria`."""

from __future__ import annotations

import json
from textwrap import shorten

import click

from lmms_topoprune.cli import options

WIDTH = 80
"""Of a terminal, which a line is to fit."""


@click.command()
@options.as_json
def command(as_json: bool) -> None:
    """List the criteria, one a line: the name for --criterion, and what it looks at.

    Those of other packages are among them. With --json also the paper, its address, what each reads and its
    own defaults.

    \b
    Example:
      topoprune criteria --json
    """
    from lmms_topoprune import registry

    found = registry.criteria().values()
    if as_json:
        click.echo(json.dumps([_facts(each) for each in found]))
        return
    width = max(len(each.name) for each in found)
    for each in found:
        click.echo(f"{each.name:{width}}  {shorten(each.summary, WIDTH - width - 2, placeholder='...')}")
    for sentence in registry.problems(registry.Criterion):
        click.echo(f"topoprune: {sentence}", err=True)


def _facts(criterion: object) -> dict[str, object]:
    names = ("name", "summary", "papers", "state", "sums", "loss", "parameters", "selection", "version")
    return {name: getattr(criterion, name) for name in names} | {"defaults": dict(criterion.defaults)}  # type: ignore[attr-defined]
