"""`topoprune plan`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lmms_topoprune.cli import shared

if TYPE_CHECKING:
    from lmms_topoprune.plan import PruningPlan


@click.command()
@click.option("-o", "--output", type=shared.PATH, help="Write the plan file here.")
@shared.model
@shared.pruning("plan", "on_error", "self_test")
@shared.as_json
def command(**arguments: Any) -> None:
    """Decide which layers go and write that to a plan file.

    The model reads the calibration samples once; the criterion scores its layers; the selection drops
    round(sparsity * L) of them, or as many as --drop, --parameters or --sparsity auto say. The loss of
    32 trials then picks among the proposals of several criteria; --trials 0 leaves that out. A plan is a
    small JSON file with everything that decided it, and is used by

    \b
      topoprune eval --model_args pretrained=embedded,plan=plan.json ...
      topoprune export --plan plan.json -o pruned-model

    \b
    Examples:
      topoprune plan --sparsity 0.3 -o plan.json
      topoprune plan --drop 8 --trials 0 -o plan.json
      topoprune plan --sparsity auto --tolerance 0.05 -o plan.json
      topoprune plan --criterion block_influence --sparsity 0.2 --samples 128
      topoprune plan --pretrained llava-hf/llava-1.5-7b-hf --sparsity 0.25
    """
    from lmms_topoprune.options import PruningOptions

    wanted = PruningOptions(**shared.given(arguments))
    shared.check_output(arguments["output"])
    from lmms_topoprune.cli.loading import load, planner_for
    from lmms_topoprune.pipeline.checks import told_of_massive, why_nothing_goes

    name = arguments["pretrained"]
    planner = planner_for(name)
    planner.check(wanted)  # a mistake costs no loading
    loaded = load(name, arguments["dtype"], arguments["device"], arguments["trust_remote_code"])
    plan = planner.use(*loaded).plan(wanted)
    output = arguments["output"]
    if output:
        _write(plan, Path(output))
    if arguments["as_json"]:
        click.echo(json.dumps(plan.to_json()))
        return
    click.echo(str(plan))
    if not plan.dropped and wanted.criterion != "dense":
        click.echo(f"WARNING: no layer would go: {why_nothing_goes(wanted, plan)}", err=True)
    if plan.massive_dropped:
        click.echo(f"WARNING: {told_of_massive(plan)}", err=True)
    if plan.scores is not None:
        dropped = set(plan.dropped)
        for layer, score in enumerate(plan.scores):
            click.echo(f"  layer {layer:3d}  {score:9.4f}  {'dropped' if layer in dropped else ''}".rstrip())
    for line in _told_of_losses(plan, wanted.allowed_rise[0] == "answers"):
        click.echo(line)
    if output:
        click.echo(f"Plan written to {output}.")


def _told_of_losses(plan: PruningPlan, of_answers: bool) -> Iterator[str]:
    """Whether trials or scores chose, and what every number of layers costs that sparsity=auto has tried."""
    if best := plan.winner:
        own = float(plan.trials[0]["loss"])
        if len(plan.trials) == 1:
            yield f"The scores chose; without these layers the loss is {own:.4f}."
        elif best["dropped"] == plan.trials[0]["dropped"]:
            yield f"The scores' own set was the best of {len(plan.trials)} trials: loss {own:.4f}."
        else:
            yield (
                f"The trials chose, not the scores: loss {best['loss']:.4f}, proposed by {best['by']}; "
                f"the scores' own set has {own:.4f}."
            )
    if rises := plan.parameters.get("rises"):
        what = "answers changed" if of_answers else "rise of the loss"
        told = (
            f"{count}: {100 * rise:.3g}%" if of_answers else f"{count}: {rise:.3g}"
            for count, rise in rises.items()
        )
        yield f"Layers gone and {what} (tolerance {plan.parameters['tolerance']}): {', '.join(told)}."


def _write(plan: Any, path: Path) -> None:
    from lmms_topoprune.errors import InputError

    try:
        plan.save(path)
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be written: {error.strerror}; nothing was changed") from None
