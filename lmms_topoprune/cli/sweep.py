"""`topoprune sweep`, and the part of it that `topoprune demo` shares."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lmms_topoprune.cli import options
from lmms_topoprune.errors import OptionError
from lmms_topoprune.options import PruningOptions

if TYPE_CHECKING:
    from lmms_topoprune.results.reading import Run


@click.command()
@click.option(
    "--criteria",
    default="topology_angle_influence,cosine",
    show_default=True,
    help="Criteria, joined by commas.",
)
@click.option(
    "--sparsities", default="0.1,0.3", show_default=True, help="Shares of layers, joined by commas."
)
@click.option(
    "--seeds", default="0", show_default=True, help="Seeds of the calibration set, joined by commas."
)
@click.option(
    "--repair",
    "repairs",
    default="none",
    show_default=True,
    help="Repairs without training, joined by commas: none, linear, rescale.",
)
@click.option("--tasks", default="topoprune", show_default=True, help="lmms-eval tasks, joined by commas.")
@click.option("--limit", type=float, help="Questions a task instead of all; below 1, their share.")
@click.option("--batch-size", default=16, show_default=True, help="Questions answered at once.")
@click.option("--workers", type=int, help="Models evaluated at once, each by a process of its own.")
@click.option("--ray", is_flag=True, help="Evaluate on a Ray cluster: $RAY_ADDRESS, or this machine alone.")
@click.option("--ray-address", help='Evaluate on this Ray cluster, such as "auto" or "ray://head:10001".')
@click.option("-o", "--output", type=options.PATH, required=True, help="Folder for plans and results.")
@options.model
@options.pruning("sparsity", "layers", "plan", "criterion", "seed", "repair", "on_error", "self_test")
@options.as_json
def command(**arguments: Any) -> None:
    """Evaluate criteria x sparsities x seeds on one loaded model; resumable.

    The model is loaded once, one calibration pass a seed serves all criteria (but those that need other
    prompts, topovlm, or another number of samples, greedy), and cells that drop the same layers are
    evaluated once. A sweep that was interrupted, even by kill -9, goes on where it was
    when the same command is given again; more criteria or sparsities may be added to a finished one.

    \b
    Example:
      topoprune sweep --criteria topology_angle_influence,cosine,random --sparsities 0.1,0.2,0.3 \\
          --seeds 0,1,2 -o runs/sweep
      topoprune compare runs/sweep
      topoprune report runs/sweep -o report.html

    A criterion may carry options of its own, and be turned round:

    \b
      topology:selection=block         the best single block instead of several
      topology:k=5+10+15               several scales
      gardinazzi:selection=threshold   the paper's rule; it finds the number of layers by itself
      reverse:cosine                   drops first what cosine would keep longest

    With --repair none,linear every cell is evaluated as deleted and with its repair, so that the effects
    are not mixed.

    --workers 2 evaluates two models at once, each in a process with a model of its own; GPUs are taken
    in turn, CPU cores are shared out. --ray does the same on a Ray cluster, one GPU a model. The results
    are those of a sweep without either, and a model whose worker dies is evaluated again.
    """
    shared = options.given(arguments)
    own = {name: value for name, value in arguments.items() if name not in PruningOptions.names()}
    run(shared=shared, **own)
    finish(Path(arguments["output"]), arguments["as_json"], "Sweep")


def run(
    *,
    criteria: str,
    sparsities: str,
    seeds: str,
    tasks: str,
    limit: float | None,
    batch_size: int,
    output: str,
    pretrained: str,
    dtype: str | None,
    device: str | None,
    shared: dict[str, Any],
    repairs: str = "none",
    workers: int | None = None,
    ray: bool = False,
    ray_address: str | None = None,
    **_: Any,
) -> list[Run]:
    """Load the dense model and sweep, with progress on the screen."""
    from lmms_topoprune.sweep.grid import Grid, questions

    if workers is not None and workers < 1:
        raise OptionError(f"workers is {workers}; allowed: whole numbers from 1")
    limit = questions(limit)
    options.check_output(output, folder=True)
    if ray or ray_address:
        from lmms_topoprune.sweep.ray_cluster import require_ray

        require_ray()
    grid = Grid(
        with_repairs(options.listed(criteria, "criteria"), options.listed(repairs, "repair")),
        tuple(options.numbers(sparsities, "sparsities", float)),
        tuple(options.numbers(seeds, "seeds", int)),
        shared,
    )
    from lmms_topoprune.cli.progress_screen import Screen

    with Screen() as screen:
        screen.say("Loading the model ...")
        from lmms_topoprune.cli.loading import readers
        from lmms_topoprune.harness.session import Session
        from lmms_topoprune.sweep.runner import sweep

        precision = f",dtype={dtype}" if dtype else ""
        session = Session.open(
            "dense_llava",
            f"pretrained={pretrained}{precision}",
            batch_size=batch_size,
            device=device,
            log=Path(output) / "lmms-eval.log",
            on_error=screen.say,
        )
        chosen = options.listed(tasks, "tasks")
        return sweep(
            session,
            grid,
            chosen,
            output,
            limit=limit,
            executor=_executor(session, workers, ray, ray_address, device, Path(output)),
            watcher=screen,
            readers=readers(shared.get("calibration_strict")),
            calibration_progress=True,
        )


def with_repairs(criteria: list[str], repairs: list[str]) -> tuple[str, ...]:
    """Every criterion with every repair, as variants of the criterion."""
    return tuple(
        name if repair == "none" else f"{name}:repair={repair}" for name in criteria for repair in repairs
    )


def _executor(
    session: Any, workers: int | None, ray: bool, address: str | None, device: str | None, logs: Path
) -> Any:
    """Who evaluates; None for the session itself, which is here anyway."""
    if ray or address:
        from lmms_topoprune.sweep.ray_cluster import RayCluster

        return RayCluster(session.opener, address, workers, device)
    if workers is None or workers == 1:
        return None
    from lmms_topoprune.sweep.workers import Processes

    return Processes(session.opener, workers, device, logs)


def finish(folder: Path, as_json: bool, title: str) -> None:
    """Compare all that the folder holds, earlier commands' cells included; keep the table and show it."""
    from lmms_topoprune.cli.table import show
    from lmms_topoprune.comparison.side_by_side import compare
    from lmms_topoprune.report.tables import render, save
    from lmms_topoprune.sweep.run_folders import read_runs

    comparison = compare(read_runs([folder]))
    for suffix in (".md", ".json", ".csv"):
        save(comparison, folder / f"comparison{suffix}")
    if as_json:
        click.echo(render(comparison, "json"), nl=False)
        return
    show(comparison, title)
    click.echo(f"Results, plans and the table are in {folder}.")
