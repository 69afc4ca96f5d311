"""`topoprune sweep`, and the part of it that `topoprune demo` shares."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from lmms_topoprune import registry
from lmms_topoprune.cli import shared
from lmms_topoprune.errors import OptionError
from lmms_topoprune.options import NO_REPAIR
from lmms_topoprune.sweep.grid import OF_GRID

if TYPE_CHECKING:
    from lmms_topoprune.comparison.side_by_side import Comparison
    from lmms_topoprune.results.reading import Run
    from lmms_topoprune.sweep.recipe import Recipe


@click.command()
@click.argument("recipe", required=False, type=shared.PATH)
@click.option(
    "--criteria",
    default="zigzag_trials,block_influence",
    show_default=True,
    type=shared.CRITERION,
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
    type=shared.REPAIR,
    help=f"Repairs without training, joined by commas: {', '.join((NO_REPAIR, *registry.repair_names()))}.",
)
@click.option(
    "--heal",
    "heals",
    default="none",
    show_default=True,
    help="Training behind the repair, joined by commas: none, steps=200, steps=100+method=full.",
)
@shared.evaluated
@click.option("--batch-size", default=16, show_default=True, help="Questions answered at once.")
@click.option("--workers", type=int, help="Models evaluated at once, each by a process of its own.")
@click.option("--ray", is_flag=True, help="Evaluate on a Ray cluster: $RAY_ADDRESS, or this machine alone.")
@click.option("--ray-address", help='Evaluate on this Ray cluster, such as "auto" or "ray://head:10001".')
@click.option("--wandb-args", help="lmms-eval's: log each evaluation, such as project=pruning,mode=offline.")
@click.option("--hf-hub-log-args", help="lmms-eval's: push results, such as push_results_to_hub=True.")
@click.option("-o", "--output", type=shared.PATH, required=True, help="Folder for plans and results.")
@shared.model
@shared.pruning(*OF_GRID, "repair", "heal")
@shared.as_json
def command(**arguments: Any) -> None:
    """Evaluate criteria x sparsities x seeds on one loaded model; resumable.

    The model is loaded once, one calibration pass a seed serves all criteria (but those that need other
    prompts, topovlm, or another number of samples, greedy), and cells that drop the same layers are
    evaluated once. A sweep that was interrupted, even by kill -9, goes on where it was
    when the same command is given again; more criteria or sparsities may be added to a finished one.

    \b
    Example:
      topoprune sweep --criteria zigzag_trials,block_influence,random \\
          --sparsities 0.1,0.2,0.3 --seeds 0,1,2 -o runs/sweep
      topoprune compare runs/sweep
      topoprune report runs/sweep -o report.html

    A criterion may carry options of its own, and be turned round:

    \b
      topology:selection=block         the best single block instead of several
      topology:k=5+10+15               several scales
      gardinazzi:selection=threshold   the paper's rule; finds the number itself
      reverse:cosine                   drops first what cosine would keep longest

    With --repair none,linear every cell is evaluated as deleted and with its repair, and with
    --heal none,steps=200 without and with training behind it, so that the effects are not mixed.

    --workers 2 evaluates two models at once, each in a process with a model of its own; GPUs are taken
    in turn, CPU cores are shared out. --ray does the same on a Ray cluster, one GPU a model. The results
    are those of a sweep without either, and a model whose worker dies is evaluated again.

    Any family will do: --model dense_qwen2_vl --pretrained NAME; `topoprune models` lists them. RECIPE is a
    YAML file with models, criteria, sparsities, seeds, repairs, heals, tasks, limit, batch_size, include_path
    and options; what the command line says counts instead. Every sweep keeps its recipe beside its results:
    topoprune sweep runs/sweep/recipe.yaml -o runs/again repeats it.
    """
    from lmms_topoprune.cli.table import show

    folders = run(**arguments)
    for folder, (_, comparison) in finish(folders, arguments["as_json"]).items():
        show(comparison, "Sweep" if len(folders) == 1 else f"Sweep: {folder.name}")
        click.echo(f"Results, plans and the table are in {folder}.")


def run(output: str, device: str | None, **arguments: Any) -> list[Path]:
    """Load each dense model and sweep, with progress on the screen; returns the folders.

    Raises:
        OptionError: an argument cannot be used.
        MissingExtraError: Ray is asked for and not installed.
    """
    from lmms_topoprune.sweep.recipe import run_sweep

    workers, ray, address = (arguments.get(name) for name in ("workers", "ray", "ray_address"))
    if workers is not None and workers < 1:
        raise OptionError(f"workers is {workers}; allowed: whole numbers from 1")
    recipe = _recipe(arguments)
    shared.check_output(output, folder=True)
    if ray or address:
        from lmms_topoprune.sweep.ray_cluster import require_ray

        require_ray()
    from lmms_topoprune.cli.loading import readers
    from lmms_topoprune.cli.progress_screen import Screen

    publisher = _publisher(arguments.get("wandb_args"), arguments.get("hf_hub_log_args"))
    with Screen() as screen:
        screen.say("Loading the model ...")
        run_sweep(
            recipe,
            output,
            device=device,
            watcher=screen,
            executor=lambda session, logs: _executor(session, workers, bool(ray), address, device, logs),
            on_error=screen.say,
            publisher=publisher,
            readers=readers(),
            calibration_progress=True,
        )
    return recipe.folders(Path(output))


def _publisher(wandb_args: str | None, hf_hub_log_args: str | None) -> Any:
    """What sends results elsewhere, if anything does; importing it imports lmms-eval."""
    if wandb_args is None and hf_hub_log_args is None:
        return None
    from lmms_topoprune.harness.publish import Publisher

    return Publisher(wandb_args, hf_hub_log_args)


def _recipe(arguments: dict[str, Any]) -> Recipe:
    """The recipe file with what the command line says instead, or what the command line says alone."""
    from lmms_topoprune.sweep.recipe import Recipe

    file = arguments.get("recipe")
    context = click.get_current_context()

    def said(name: str) -> bool:
        return file is None or context.get_parameter_source(name) is not ParameterSource.DEFAULT

    lists: dict[str, Any] = {
        "criteria": lambda text: shared.listed(text, "criteria"),
        "sparsities": lambda text: shared.numbers(text, "sparsities", float),
        "seeds": lambda text: shared.numbers(text, "seeds", int),
        "repairs": lambda text: shared.listed(text, "repair"),
        "heals": lambda text: shared.listed(text, "heal"),
        "tasks": lambda text: shared.listed(text, "tasks"),
    }
    told = {name: split(arguments[name]) for name, split in lists.items() if name in arguments and said(name)}
    told |= {n: arguments[n] for n in ("limit", "batch_size", "include_path") if said(n)}
    found = Recipe.load(file) if file is not None else None
    if found is None or any(map(said, ("model", "pretrained", "dtype", "trust_remote_code"))):
        told["models"] = [_model(arguments)]
    common = {**({} if found is None else found.options), **shared.given(arguments)}
    common = {
        name: value for name, value in common.items() if name not in ("seed", "repair", "heal", "sparsity")
    }
    return Recipe(**told, options=common) if found is None else replace(found, **told, options=common)


def _model(arguments: dict[str, Any]) -> dict[str, Any]:
    """The model that the command line names, as a recipe has it."""
    from lmms_topoprune.sweep.recipe import dense_model

    chosen: dict[str, Any] = {"model": dense_model(arguments["model"])}
    source = click.get_current_context().get_parameter_source("pretrained")
    if chosen["model"] == "dense_llava" or source is not ParameterSource.DEFAULT:
        chosen["pretrained"] = arguments["pretrained"]  # the embedded model is a LLaVA
    if arguments["dtype"]:
        chosen["dtype"] = arguments["dtype"]
    return chosen | ({"trust_remote_code": True} if arguments["trust_remote_code"] else {})


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


def finish(folders: list[Path], as_json: bool) -> dict[Path, tuple[list[Run], Comparison]]:
    """Compare all that each folder holds, earlier commands' cells included, and keep the tables.

    Returns:
        Every folder's runs and the table that is to be shown; empty once it has been printed as JSON.
    """
    from lmms_topoprune.comparison.side_by_side import compare
    from lmms_topoprune.report.tables import render, save
    from lmms_topoprune.sweep.run_folders import read_runs

    runs = {folder: read_runs([folder]) for folder in folders}
    tables = {folder: (found, compare(found)) for folder, found in runs.items()}
    for folder, (_, comparison) in tables.items():
        for suffix in (".md", ".json", ".csv"):
            save(comparison, folder / f"comparison{suffix}")
    if not as_json:
        return tables
    texts = [render(comparison, "json") for _, comparison in tables.values()]
    click.echo(texts[0] if len(texts) == 1 else f"[{','.join(texts)}]", nl=False)
    return {}
