"""`topoprune export`, also called `topoprune apply`."""

from __future__ import annotations

import json

import click

from lmms_topoprune.cli import options


@click.command("export")
@click.option("--plan", "plan_file", required=True, help="A plan file of `topoprune plan`.")
@click.option("-o", "--output", required=True, help="Folder for the pruned model.")
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
    from lmms_topoprune.options import PruningOptions
    from lmms_topoprune.plan import PruningPlan

    wanted = PruningOptions(plan=plan_file)
    PruningPlan.load(plan_file)  # a mistake costs no loading
    from lmms_topoprune import planning
    from lmms_topoprune.cli.loading import load, readers
    from lmms_topoprune.repairing import carry_out
    from lmms_topoprune.surgery.export import export

    model, processor = load(pretrained, dtype or "auto", device)
    plan = planning.explicit_plan(model, wanted, name=pretrained)
    carry_out(model, processor, plan, readers=readers(), progress=True)
    folder = export(model, processor, plan, output, source=pretrained, overwrite=overwrite)
    kept = {"folder": str(folder), "layers": len(plan.kept), "parameters": model.num_parameters()}
    if as_json:
        click.echo(json.dumps(kept))
    else:
        click.echo(
            f"{kept['layers']} of {plan.layers} layers, {kept['parameters']:,} parameters, in {folder}."
        )
