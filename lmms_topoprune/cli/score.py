"""`topoprune score`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from lmms_topoprune.cli import options


@click.command()
@click.option(
    "--criteria",
    default="topology_angle_influence,topology,cosine,block_influence",
    show_default=True,
    type=options.CRITERION,
    help="Joined by commas.",
)
@click.option("-o", "--output", type=options.PATH, help="Write the scores (JSON) here.")
@click.option(
    "--states",
    help="Keep the hidden states of the calibration pass in this folder, and read them from there if they "
    "are: further criteria then need no pass.",
)
@options.model
@options.pruning("layers", "plan", "criterion", "on_error", "self_test")
@options.as_json
def command(**arguments: Any) -> None:
    """Score every layer by several criteria, with one calibration pass.

    A higher score is dropped earlier; a mark shows what each criterion would drop, at sparsity 0.3 unless
    another one is given. Criteria that need other prompts (topovlm) or numbers of samples (greedy) have
    a pass of their own.

    \b
    Examples:
      topoprune score --criteria topology,cosine,angular --sparsity 0.3 -o scores.json
      topoprune score --criteria topology --states states
      topoprune score --criteria gardinazzi --k 10 --states states     # no second pass
    """
    from lmms_topoprune.sweep.grid import Grid

    names = options.listed(arguments["criteria"], "criteria")
    shared = options.given(arguments)
    sparsity, seed = shared.pop("sparsity", 0.3), shared.pop("seed", 0)
    cells = Grid(tuple(names), (sparsity,), (seed,), shared).cells()
    wanted = [cell.options(shared) for cell in cells]
    options.check_output(arguments["output"])
    options.check_output(arguments["states"], folder=True, what="states")
    from lmms_topoprune.cli.loading import load, planner_for
    from lmms_topoprune.report.tables import write

    name = arguments["pretrained"]
    planner = planner_for(name, None if arguments["states"] is None else Path(arguments["states"]))
    planner.check(*wanted)  # a mistake costs no loading
    loaded = load(name, arguments["dtype"], arguments["device"], arguments["trust_remote_code"])
    planner.use(*loaded)
    made = planner.plans(wanted, always_scored=True)
    plans = {cell.criterion: plan for cell, plan in zip(cells, made, strict=True)}
    kept = list(dict.fromkeys(str(place) for each in wanted if (place := planner.states_file(each))))
    value = {
        "schema": "topoprune-scores/1",
        "plans": {name: plan.to_json() for name, plan in plans.items()},
        "states": kept,
    }
    if arguments["output"]:
        write(Path(arguments["output"]), json.dumps(value, indent=2) + "\n")
    if arguments["as_json"]:
        click.echo(json.dumps(value))
    else:
        _show(plans, sparsity)
        for file in kept:
            click.echo(f"Hidden states kept in {file}.")


def _show(plans: dict[str, Any], sparsity: float) -> None:
    from rich.console import Console
    from rich.table import Table

    board = Table(title=f"Layer scores (* dropped at sparsity {sparsity:g})", title_justify="left")
    board.add_column("layer", justify="right")
    for name in plans:
        board.add_column(name, justify="right")
    layers = next(iter(plans.values())).layers
    for layer in range(layers):
        cells = [
            ("–" if plan.scores is None else f"{plan.scores[layer]:.4f}")
            + ("*" if layer in plan.dropped else " ")
            for plan in plans.values()
        ]
        board.add_row(str(layer), *cells)
    Console().print(board)
