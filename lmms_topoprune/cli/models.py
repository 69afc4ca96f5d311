"""`topoprune models`."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from lmms_topoprune.cli import options


@click.command()
@click.option("--all", "everything", is_flag=True, help="Those of rare criteria too.")
@options.as_json
def command(everything: bool, as_json: bool) -> None:
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
