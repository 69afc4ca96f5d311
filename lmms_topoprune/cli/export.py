"""`topoprune export`, also called `topoprune apply`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from lmms_topoprune.cli import options

if TYPE_CHECKING:
    from lmms_topoprune.plan import PruningPlan


@click.command("export")
@click.option(
    "--plan", "plan_file", type=options.PATH, required=True, help="A plan file of `topoprune plan`."
)
@click.option("-o", "--output", type=options.PATH, required=True, help="Folder for the pruned model.")
@click.option("--overwrite", is_flag=True, help="Replace a folder that exists.")
@options.model
@options.as_json
def command(
    plan_file: str,
    output: str,
    overwrite: bool,
    pretrained: str,
    dtype: str | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Write the pruned model as an ordinary model folder.

    The folder loads with plain from_pretrained, without this package. It also holds the plan, a model
    card and a mergekit recipe, and appears only once it is complete.

    \b
    Example:
      topoprune plan --sparsity 0.3 -o plan.json
      topoprune export --plan plan.json -o pruned-model
    """
    from lmms_topoprune.plan import PruningPlan

    plan = PruningPlan.load(plan_file)  # a mistake costs no loading
    options.check_output(output, folder=True)
    from lmms_topoprune.cli.loading import load_lean
    from lmms_topoprune.surgery.export import export

    lean = None if plan.repair else load_lean(pretrained, plan, dtype or "auto", device)
    model, processor = lean or _dense(plan_file, plan, pretrained, dtype, device)
    folder = export(model, processor, plan, output, source=pretrained, overwrite=overwrite)
    kept = {"folder": str(folder), "layers": len(plan.kept), "parameters": model.num_parameters()}
    if as_json:
        click.echo(json.dumps(kept))
    else:
        click.echo(
            f"{kept['layers']} of {plan.layers} layers, {kept['parameters']:,} parameters, in {folder}."
        )


def _dense(
    plan_file: str, plan: PruningPlan, pretrained: str, dtype: str | None, device: str | None
) -> tuple[Any, Any]:
    """The dense model with the plan carried out on it, and its processor."""
    from lmms_topoprune.cli.loading import load, planner_for
    from lmms_topoprune.options import PruningOptions
    from lmms_topoprune.pipeline import apply_plan

    # A repair belongs to the weights as `topoprune plan` loads them, and is fitted to these.
    model, processor = load(pretrained, dtype or (None if plan.repair else "auto"), device)
    planner = planner_for(pretrained).use(model, processor)
    planner.plan(PruningOptions(plan=plan_file))  # it is for this model
    apply_plan(model, processor, plan, calibrations=planner.sets, progress=True)
    return model, processor
