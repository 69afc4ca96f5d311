"""`topoprune demo`: the whole package at work on the embedded model."""

from __future__ import annotations

from typing import Any

import click

from lmms_topoprune.cli import options

CRITERIA = "zigzags,topology,cosine,block_influence"


@click.command()
@click.option(
    "--criteria",
    default=CRITERIA,
    show_default=True,
    type=options.CRITERION,
    help="Criteria, joined by commas.",
)
@click.option(
    "--sparsity", default="0.3", show_default=True, help="Share of layers to drop; several by commas."
)
@options.evaluated
@click.option("--samples", type=int, help="Calibration samples.  [default: 512]")
@click.option("--batch-size", default=32, show_default=True, help="Questions answered at once.")
@click.option(
    "-o",
    "--output",
    type=options.PATH,
    default="runs/demo",
    show_default=True,
    help="Folder for plans and results.",
)
@options.model
@options.as_json
def command(**arguments: Any) -> None:
    """See it work: the embedded model, dense and pruned, in one table.

    lmms-eval evaluates a small trained vision-language model that ships with this package: whole, and
    with 30 % of its decoder layers dropped as four criteria would have it. Nothing is downloaded. It
    takes a few minutes on two CPU cores; called again it shows the finished table at once.

    \b
    Examples:
      topoprune demo
      topoprune demo --sparsity 0.1,0.3 --criteria topology,random -o runs/more
      topoprune demo --limit 40 -o runs/quick       # a first look in a minute
      topoprune demo --model qwen2_vl --pretrained Qwen/Qwen2-VL-2B-Instruct \\
          -o runs/qwen
    """
    from lmms_topoprune.cli.sweep import finish, run

    sparsities = arguments.pop("sparsity")
    finish(run(sparsities=sparsities, **arguments), arguments["as_json"], "What pruning costs")
