"""`topoprune score`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from lmms_topoprune.cli import shared


@click.command()
@click.option(
    "--criteria",
    default="zigzag_influence,topology,cosine,block_influence",
    show_default=True,
    type=shared.CRITERION,
    help="Joined by commas.",
)
@click.option("-o", "--output", type=shared.PATH, help="Write the scores (JSON) here.")
@click.option(
    "--states",
    help="Keep the hidden states of the calibration pass in this folder, and read them from there if they "
    "are: further criteria then need no pass.",
)
@shared.model
@shared.pruning("drop", "parameters", "tolerance", "layers", "plan", "criterion", "on_error", "self_test")
@shared.as_json
def command(**arguments: Any) -> None:
    """Score every layer by several criteria, with one calibration pass.

    A higher score is dropped earlier; a mark shows what each criterion would drop, at sparsity 0.3 unless
    another one is given. Criteria that need other prompts (topovlm) or numbers of samples (greedy) have
    a pass of their own.

    \b
    Examples:
      topoprune score --criteria topology,cosine --sparsity 0.3 -o scores.json
      topoprune score --criteria topology --states states
      topoprune score --criteria gardinazzi --k 10 --states states # no new pass
    """
    from lmms_topoprune.sweep.grid import Grid

    names = shared.listed(arguments["criteria"], "criteria")
    common = shared.given(arguments)
    sparsity, seed = common.pop("sparsity", 0.3), common.pop("seed", 0)
    cells = Grid(tuple(names), (sparsity,), (seed,), common).points()
    wanted = [cell.options(common) for cell in cells]
    shared.check_output(arguments["output"])
    shared.check_output(arguments["states"], folder=True, what="states")
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
    """One table, or several below each other where a terminal is too narrow for all criteria."""
    from rich.console import Console

    console = Console()
    width = console.width if console.is_terminal else sys.maxsize
    title = f"Layer scores (* dropped at sparsity {sparsity:g})"
    for names in _fitting(list(plans), width):
        shown = _table({name: plans[name] for name in names}, title)
        if not console.is_terminal:
            console = Console(width=Console(width=10_000).measure(shown).maximum)
        console.print(shown)


def _fitting(names: list[str], width: int) -> list[list[str]]:
    """The names in groups whose columns are no wider together than `width`."""
    groups: list[list[str]] = [[]]
    for name in names:
        if groups[-1] and sum(max(len(n), 11) + 3 for n in [*groups[-1], name]) + 9 > width:
            groups.append([])
        groups[-1].append(name)
    return groups


def _table(plans: dict[str, Any], title: str) -> Any:
    from rich.table import Table

    found = Table(title=title, title_justify="left")
    found.add_column("layer", justify="right")
    for name in plans:
        found.add_column(name, justify="right", no_wrap=True)
    for layer in range(next(iter(plans.values())).layers):
        cells = [
            ("–" if plan.scores is None else f"{plan.scores[layer]:.4f}")
            + ("*" if layer in plan.dropped else " ")
            for plan in plans.values()
        ]
        found.add_row(str(layer), *cells)
    return found
