"""`topoprune heal`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from lmms_topoprune.cli import shared
from lmms_topoprune.errors import InputError, OptionError

if TYPE_CHECKING:
    from lmms_topoprune.heal.training import Checkpoint
    from lmms_topoprune.options import PruningOptions
    from lmms_topoprune.plan import PruningPlan

REPAIR = "linear"


@click.command("heal")
@click.option("--plan", "plan_file", type=shared.PATH, required=True, help="A plan file of `topoprune plan`.")
@click.option("-o", "--output", type=shared.PATH, required=True, help="Folder for the healed model.")
@click.option("--overwrite", is_flag=True, help="Replace a folder that exists.")
@shared.healing
@click.option(
    "--repair",
    type=shared.REPAIR,
    help=f"Where to start: the model as the plan leaves it, repaired.  [default: the plan's, or {REPAIR}]",
)
@click.option("--calibration", help="Source of the samples.  [default: the plan's, or embedded]")
@click.option("--samples", type=int, help="How many samples.  [default: the plan's, or 512]")
@click.option(
    "--seed", type=int, help="Draws samples, held-out share and order.  [default: the plan's, or 0]"
)
@shared.model
@shared.as_json
@click.pass_context
def command(context: click.Context, plan_file: str, output: str, overwrite: bool, **given: Any) -> None:
    """Train a pruned model a little on the dense model's own answers, and write its folder.

    The layers of the plan are deleted, the rest is repaired and then trained: low-rank updates (LoRA) of the
    layers that stay, merged at the end, or with --full these layers themselves. The teacher is the dense
    model, which shares the weights that stay, so one copy of them is in memory. No labels are read. A share
    of the samples is held out; training stops when it gains nothing more there, and the best weights are
    kept.

    The folder is an ordinary model folder, as `topoprune export` writes it. Killed at any moment, the same
    command goes on where it was and ends in the same weights; OUTPUT.healing holds what is needed until then.
    Several processes share every step: accelerate launch -m lmms_topoprune.cli.main heal ...

    \b
    Examples:
      topoprune plan --sparsity 0.3 -o plan.json
      topoprune heal --plan plan.json -o healed-model
      topoprune heal --plan plan.json -o healed-model --steps 1000 \\
          --calibration texts.jsonl --samples 2000
    """
    from lmms_topoprune.plan import PruningPlan

    plan = PruningPlan.load(plan_file)  # a mistake costs no loading
    _check_output(output, overwrite)
    if context.get_parameter_source("pretrained") is not ParameterSource.COMMANDLINE:
        given["pretrained"] = plan.model
    wanted = _wanted(plan, plan_file, given)
    folder, healed, model = _healed(plan, wanted, output, overwrite, given)
    if folder is None:
        return  # another process tells
    done = healed.stages["heal"]
    kept = {"folder": str(folder), "layers": len(plan.kept), "parameters": model.num_parameters(), **done}
    if given["as_json"]:
        click.echo(json.dumps(kept))
        return
    from lmms_topoprune.plan import healing_told

    click.echo(f"{len(plan.kept)} of {plan.layers} layers, {kept['parameters']:,} parameters, in {folder}.")
    click.echo(f"{healing_told(healed).capitalize()}.")


def _check_output(output: str, overwrite: bool) -> None:
    shared.check_output(output, folder=True)
    if Path(output).is_dir() and any(Path(output).iterdir()) and not overwrite:
        raise OptionError(
            f"output is {output!r}, a folder that is not empty; pass another one, or --overwrite"
        )
    _checkpoint(output).check()


def _checkpoint(output: str) -> Checkpoint:
    from lmms_topoprune.heal.training import Checkpoint

    return Checkpoint(Path(f"{output.rstrip('/')}.healing"), "")


def _wanted(plan: PruningPlan, plan_file: str, given: dict[str, Any]) -> PruningOptions:
    """The plan with its repair and healing, as options; what is not given is the plan's, or the default."""
    from lmms_topoprune.heal_options import HealingOptions
    from lmms_topoprune.options import NO_REPAIR, PruningOptions

    if not plan.dropped:
        raise InputError(f"plan {plan_file!r} drops no layer, so there is nothing to heal; make another plan")
    asked = {name: given[name] for name in HealingOptions.names() if given.get(name) is not None}
    if given["full"]:
        asked["method"] = "full"
    told = HealingOptions.of_plan(plan.heal) if plan.heal else HealingOptions()
    start = plan.repair.get("method", NO_REPAIR)
    if (plan.repair or plan.heal) and given["repair"] not in (None, start):
        raise _contradiction("repair", given["repair"], f"starts from {start!r}")
    for name, value in asked.items():
        if plan.heal and value != (own := told.to_json()[name]):
            raise _contradiction(name, value, f"is healed with {own!r}")
    drawn = {**plan.calibration, **plan.repair, **plan.heal}
    drawn = {"calibration": drawn.get("source"), "samples": drawn.get("samples"), "seed": drawn.get("seed")}
    for name, own in drawn.items():
        if plan.heal and given[name] not in (None, own):
            raise _contradiction(name, given[name], f"is healed with {own!r}")
    drawn |= {name: given[name] for name in drawn if given[name] is not None}
    repair = given["repair"] or (NO_REPAIR if plan.repair or plan.heal else REPAIR)
    return PruningOptions(
        plan=plan_file,
        repair=repair,
        heal=replace(told, **asked).text,
        **{name: value for name, value in drawn.items() if value is not None},
    )


def _contradiction(name: str, value: Any, plan: str) -> OptionError:
    return OptionError(f"{name} is {value!r}, but the plan {plan}; leave it out, or make a new plan")


def _healed(
    plan: PruningPlan, wanted: PruningOptions, output: str, overwrite: bool, given: dict[str, Any]
) -> tuple[Path | None, PruningPlan, Any]:
    """Plan, heal and export; the folder is None in all processes but the first."""
    from accelerate import PartialState

    from lmms_topoprune.calibration.ranks import Ranks
    from lmms_topoprune.cli.loading import load, planner_for
    from lmms_topoprune.pipeline import apply_plan
    from lmms_topoprune.surgery.edits import outcome_of
    from lmms_topoprune.surgery.export import export

    PartialState()  # the processes that accelerate or torchrun have started meet
    ranks, name = Ranks.current(), given["pretrained"]
    planner = planner_for(name)
    planner.ranks = ranks
    ranks.each(lambda: planner.check(wanted))  # a mistake costs no loading
    loaded = ranks.each(lambda: load(name, given["dtype"], given["device"], given["trust_remote_code"]))
    model, processor = loaded
    healed = planner.use(model, processor, ranks).plan(wanted)
    checkpoint = _checkpoint(output)
    apply_plan(
        model, processor, healed, calibrations=planner.sets, progress=True, ranks=ranks,
        checkpoint=checkpoint.folder,
    )  # fmt: skip
    folder = ranks.first(lambda: export(model, processor, healed, output, source=name, overwrite=overwrite))
    if ranks.rank:
        return None, healed, model
    checkpoint.discard()
    return folder, healed.with_stages(heal=outcome_of(model)), model
