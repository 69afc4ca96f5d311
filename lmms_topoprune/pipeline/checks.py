"""Options that cannot work, found before anything is loaded or computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lmms_topoprune import registry
from lmms_topoprune.errors import InputError, OptionError, SurgeryError
from lmms_topoprune.heal.overlay import check_linear_maps
from lmms_topoprune.heal_options import HealingOptions
from lmms_topoprune.options import AUTO, PruningOptions
from lmms_topoprune.plan import PruningPlan, format_layers, parse_layers
from lmms_topoprune.surgery import decoder_layers
from lmms_topoprune.surgery.checkpoint import Checkpoint, is_quantized
from lmms_topoprune.surgery.load import model_class_of


def resolved(options: PruningOptions) -> PruningOptions:
    """The options with "auto" replaced by what the criterion uses.

    Raises:
        OptionError: no such criterion, or a threshold together with a sparsity.
    """
    criterion = registry.get(options.criterion)
    selection = options.selection
    if selection == "auto":
        free = None if options.says_how_many else criterion.selection_without_sparsity
        selection = free or criterion.selection
    if selection == "threshold" and options.says_how_many:
        raise OptionError(
            f"selection is 'threshold' and {_asked(options)}, but a threshold finds the number "
            "of layers by itself; pass eps instead, or another selection"
        )
    state = criterion.state if options.state == "auto" else options.state
    return replace(options, selection=selection, state="auto" if state == "none" else state)


def is_explicit(options: PruningOptions) -> bool:
    """Whether the layers are given, so that no criterion is asked."""
    return options.layers is not None or options.plan is not None


def drops_nothing(options: PruningOptions, layers: int | None) -> bool:
    """Whether no layer can go by these resolved options; `layers` is None where nobody knows their number."""
    if options.selection == "threshold":
        return False
    if options.sparsity == AUTO or options.parameters is not None or layers is None:
        return not options.says_how_many
    return options.drop_count(layers) == 0


def counted(options: PruningOptions, layers: int, sizes: Sequence[int], total: int) -> PruningOptions:
    """The options with a sparsity instead of a number of layers or of parameters.

    Args:
        options: what is asked for.
        layers: of the decoder.
        sizes: parameters of each layer that may go.
        total: of the whole model.

    Raises:
        OptionError: the model cannot become so small, or has not that many layers.
    """
    count = options.drop
    if options.parameters is not None:
        count, left = 0, float(total)
        for size in sorted(sizes):  # whichever layers go, these are the smallest
            if left <= options.parameters:
                break
            count, left = count + 1, left - size
        if left > options.parameters:
            raise OptionError(
                f"parameters is {options.parameters:g}, but the model has {total:g} and keeps {left:g} "
                f"without the {len(sizes)} layers that may go; allowed: from {left:g}"
            )
    if count is None:
        return options
    if count >= layers:
        raise OptionError(
            f"drop is {count}, but the model has {layers} decoder layers; allowed: 1 to {layers - 1}"
        )
    return replace(options, sparsity=count / layers, drop=None, parameters=None)


def why_nothing_goes(options: PruningOptions, plan: PruningPlan) -> str:
    """What a user may have forgotten whose plan drops no layer."""
    layers = plan.layers
    if is_explicit(options):
        return "the given plan or list of layers is empty"
    if options.sparsity == AUTO:
        return _why_not_one(options, plan.parameters.get("rises", {}).get("1"))
    if options.parameters is not None:
        return "the whole model has no more parameters than that; pass fewer"
    least = f"sparsity={max(0.3, round(1 / layers, 3)):g}"
    if options.share > 0:
        return (
            f"sparsity is {options.sparsity}, which is less than half of one of {layers} layers; pass {least}"
        )
    return (
        f"sparsity is 0; pass {least}, drop={max(1, round(0.3 * layers))}, sparsity=auto or layers=3-5+9, or "
        "evaluate the dense model"
    )


def _why_not_one(options: PruningOptions, rise: float | None) -> str:
    """Why a tolerance lets no layer go, with what the first one costs, if it was measured."""
    if rise is None:
        return "every layer has to stay"
    other = ""
    if options.allowed_rise[0] == "answers":
        costs = f"changes {rise:.1%} of the dense model's answers to the calibration samples"
        other = "calibration= with samples like your use, a rise of the loss such as tolerance=0.1, "
    else:
        costs = f"raises the loss of a calibration token by {rise:.3g} nats"
    return (
        f"dropping a single layer {costs}, more than tolerance={options.tolerance} allows; pass a larger "
        f"one, {other}or drop=1"
    )


def told_of_massive(plan: PruningPlan) -> str:
    """What a user may not have meant whose plan drops a layer that writes massive activations."""
    return (
        f"massive activations, without which most models fail, are written by what is dropped "
        f"({format_layers(plan.massive_dropped)}); a plan made with protect_massive=True keeps it"
    )


def _asked(options: PruningOptions) -> str:
    """What was asked for, as a sentence begins."""
    for name in ("drop", "parameters"):
        if getattr(options, name) is not None:
            return f"{name} is {getattr(options, name):g}"
    return f"sparsity is {options.sparsity}"


def check_budget(
    options: PruningOptions,
    layers: int,
    forbidden: frozenset[int],
    massive: frozenset[int] = frozenset(),
) -> None:
    """Refuse to drop more layers than may go, as far as it is known which these are.

    Raises:
        OptionError: says how many may go, and what keeps the others.
    """
    inner = range(options.protect_first, layers - options.protect_last)
    free = len(set(inner) - forbidden - massive)
    count = options.drop_count(layers)
    if count > free or free == 0:
        reasons = [f"protect_first={options.protect_first}", f"protect_last={options.protect_last}"]
        if forbidden:
            reasons.append(f"{len(forbidden)} layers that cannot be deleted")
        if massive:
            reasons.append(f"protect_massive ({len(massive)} layers write massive activations)")
        most = f"sparsity up to {free / layers:.3f}" if options.drop is None else f"drop up to {free}"
        raise OptionError(
            f"{_asked(options)}, which drops {count} of {layers} layers, but "
            f"{' and '.join(reasons)} leave {free} to drop; allowed: {most}"
        )


def check_drops(options: PruningOptions, layers: int) -> None:
    """Refuse a sparsity that rounds to no layer: its model would be the dense one under another name.

    Raises:
        OptionError: names the sparsity.
    """
    if options.share and not options.drop_count(layers):  # a threshold has sparsity 0
        raise OptionError(
            f"sparsity is {options.sparsity}, which drops 0 of {layers} layers; "
            f"allowed: sparsity above {0.5 / layers:.4f} (dense is added by itself)"
        )


def explicit_plan(
    options: PruningOptions, *, name: str, layers: int, fingerprint: str, versions: dict[str, str]
) -> PruningPlan:
    """The plan for an explicit list of layers, or the one in a file if it was made for this model.

    Args:
        options: with `layers` or `plan`.
        name: recorded in the plan.
        layers, fingerprint: the dense model's.
        versions: of the packages here.

    Raises:
        InputError: a layer does not exist, the file cannot be read, or it is another model's plan.
    """
    if options.plan is None:
        dropped, parameters = parse_layers(options.layers or ""), {"layers": options.layers}
        return PruningPlan(name, fingerprint, layers, dropped, "given", parameters, versions=versions)
    plan = load_plan(options.plan, layers, name)
    if plan.fingerprint != fingerprint:
        raise InputError(
            f"plan {options.plan!r} was made for {plan.model!r} with fingerprint {plan.fingerprint}, but the "
            f"weights or configuration of {name!r} have {fingerprint}; make a new plan for this model, or "
            "load it with the dtype that it had then"
        )
    return plan


def load_plan(path: str, layers: int, name: str) -> PruningPlan:
    """The plan in a file, if it is for as many layers.

    Raises:
        InputError: the file is no plan, or is for another number of layers.
    """
    plan = PruningPlan.load(path)
    if plan.layers != layers:
        raise InputError(f"plan {path!r} is for {plan.layers} layers, but {name!r} has {layers}")
    return plan


def check_healable(path: str, options: HealingOptions) -> None:
    """Refuse to heal a model by its configuration; one that cannot be told here is refused once it is loaded.

    Raises:
        SurgeryError: its weights are quantized, or LoRA is asked for and finds no linear map.
    """
    if (config := _config(path)) is None:
        return
    if is_quantized(config, {}):
        raise SurgeryError(f"heal needs plain weights, but those of {path!r} are quantized; allowed: others")
    if options.method == "lora":
        checkpoint = Checkpoint(path, model_class_of(config), {"config": config})
        check_linear_maps(decoder_layers(checkpoint.skeleton))


def count_layers(path: str) -> int | None:
    """Decoder layers according to the configuration; None if it does not say it in the usual way."""
    config = _config(path)
    return (
        None if config is None else getattr(config.get_text_config(decoder=True), "num_hidden_layers", None)
    )


def _config(path: str) -> Any:
    """The configuration; None of a model with its own code, or one that transformers does not know."""
    from transformers import AutoConfig

    try:
        # Without a say on remote code transformers asks whoever sits at the terminal, and waits.
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        config.get_text_config(decoder=True)
        return config
    except Exception:  # loading will say
        return None
