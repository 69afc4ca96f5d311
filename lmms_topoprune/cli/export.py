"""`topoprune export`, also called `topoprune apply`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from lmms_topoprune.cli import shared
from lmms_topoprune.errors import OptionError

if TYPE_CHECKING:
    from lmms_topoprune.plan import PruningPlan


@click.command("export")
@click.option("--plan", "plan_file", type=shared.PATH, required=True, help="A plan file of `topoprune plan`.")
@click.option("-o", "--output", type=shared.PATH, required=True, help="Folder for the pruned model.")
@click.option("--overwrite", is_flag=True, help="Replace a folder that exists.")
@click.option("--merge-adapter", is_flag=True, help="Add an adapter that the model carries to its weights.")
@click.option(
    "--figures",
    "figures_from",
    type=shared.PATH,
    help="For the model card: a folder with results of this plan and of the dense model, or a JSON file with "
    "benchmark -> value, or -> {column: value}.",
)
@shared.model
@shared.as_json
@click.pass_context
def command(
    context: click.Context,
    plan_file: str,
    output: str,
    overwrite: bool,
    merge_adapter: bool,
    figures_from: str | None,
    pretrained: str,
    dtype: str | None,
    device: str | None,
    trust_remote_code: bool,
    as_json: bool,
) -> None:
    """Write the pruned model as an ordinary model folder.

    The folder loads with plain from_pretrained, without this package. It also holds the plan, a model
    card and a mergekit recipe, and appears only once it is complete.

    Without --pretrained it is the model that the plan was made for. An adapter that the model carries is
    refused, or added to the weights with --merge-adapter.

    \b
    Example:
      topoprune plan --sparsity 0.3 -o plan.json
      topoprune export --plan plan.json -o pruned-model
    """
    from lmms_topoprune.plan import PruningPlan

    plan = PruningPlan.load(plan_file)  # a mistake costs no loading
    if context.get_parameter_source("pretrained") is not ParameterSource.COMMANDLINE:
        pretrained = plan.model
    shared.check_output(output, folder=True)
    if Path(output).is_dir() and any(Path(output).iterdir()) and not overwrite:
        raise OptionError(
            f"output is {output!r}, a folder that is not empty; pass another one, or --overwrite"
        )
    from lmms_topoprune.cli.loading import load_lean
    from lmms_topoprune.surgery.export import export

    figures = _figures(Path(figures_from), plan) if figures_from else None
    lean = (
        None
        if plan.changes_weights
        else load_lean(pretrained, plan, dtype or "auto", device, trust_remote_code)
    )
    model, processor = lean or _dense(plan_file, plan, pretrained, dtype, device, trust_remote_code)
    more = {"overwrite": overwrite, "merge_adapter": merge_adapter}
    folder = export(model, processor, plan, output, figures, source=pretrained, **more)
    kept = {"folder": str(folder), "layers": len(plan.kept), "parameters": model.num_parameters()}
    if as_json:
        click.echo(json.dumps(kept))
    else:
        click.echo(
            f"{kept['layers']} of {plan.layers} layers, {kept['parameters']:,} parameters, in {folder}."
        )


def _figures(path: Path, plan: PruningPlan) -> Mapping[str, Any]:
    """Benchmark -> figures: those of a JSON file, or the scores of this plan beside the dense model's."""
    from lmms_topoprune._util.checked_files import read_object
    from lmms_topoprune.comparison.side_by_side import compare
    from lmms_topoprune.errors import InputError
    from lmms_topoprune.sweep.run_folders import read_runs

    if not path.is_dir():
        return read_object(path)
    found = compare(read_runs([path]), every_seed=True)
    dense, *others = found.rows
    own = next((row for row in others if row.plan_hash == plan.hash), None)
    if own is None:
        raise InputError(
            f"figures is {str(path)!r}, which holds no results of the plan {plan.hash}; allowed: a folder "
            "with results of this plan and of the dense model"
        )
    factors = {task: 1 if task in found.own_scale else 100 for task in found.tasks}
    return {
        task: {
            "metric": found.tasks[task],
            "dense": round(factor * dense.cells[task].score, 2),
            "pruned": round(factor * own.cells[task].score, 2),
        }
        for task, factor in factors.items()
    }


def _dense(
    plan_file: str,
    plan: PruningPlan,
    pretrained: str,
    dtype: str | None,
    device: str | None,
    trust_remote_code: bool,
) -> tuple[Any, Any]:
    """The dense model with the plan carried out on it, and its processor."""
    from lmms_topoprune.cli.loading import load, planner_for
    from lmms_topoprune.options import PruningOptions
    from lmms_topoprune.pipeline import apply_plan

    # A repair belongs to the weights as `topoprune plan` loads them, and is fitted to these.
    model, processor = load(
        pretrained, dtype or (None if plan.changes_weights else "auto"), device, trust_remote_code
    )
    planner = planner_for(pretrained).use(model, processor)
    planner.plan(PruningOptions(plan=plan_file))  # it is for this model
    apply_plan(model, processor, plan, calibrations=planner.sets, progress=True)
    return model, processor
