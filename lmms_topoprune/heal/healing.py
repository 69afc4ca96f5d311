"""Heal a pruned model in place: train on the dense model's answers, and attach the new weights."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn

from lmms_topoprune._util import files
from lmms_topoprune.calibration.collect import evaluation_mode
from lmms_topoprune.calibration.loss import Answers, answered_texts
from lmms_topoprune.calibration.prompts import Prompter
from lmms_topoprune.calibration.ranks import Ranks
from lmms_topoprune.calibration.samples import Sample
from lmms_topoprune.errors import InputError, MissingExtraError, SurgeryError
from lmms_topoprune.heal.overlay import overlay_on
from lmms_topoprune.heal.training import Checkpoint, Progress, Tell, Training
from lmms_topoprune.heal_options import HealingOptions
from lmms_topoprune.surgery import Deletion, decoder_layers
from lmms_topoprune.surgery.edits import HEALING, OUTCOME

log = logging.getLogger(__name__)

VERSION = 1
"""Raised when the same samples and options would give other weights."""
TEACHER = "the dense model"
LEAST_SAMPLES = 16
"""Fewer leave nothing to train on once the held-out share is taken."""


def heal(
    deletion: Deletion,
    processor: Any,
    samples: Sequence[Sample],
    options: HealingOptions,
    *,
    seed: int = 0,
    facts: Mapping[str, Any] | None = None,
    checkpoint: Path | None = None,
    key: str = "",
    tell: Tell = lambda step, loss, tokens: None,
    ranks: Ranks | None = None,
    prompter: Prompter | None = None,
    answers: Answers | None = None,
) -> dict[str, float]:
    """Train a pruned model on the answers of the dense one; no labels are read.

    The teacher is the same model with its deleted layers put back, so there is one copy of the weights in
    memory. Image and video samples count by the answer that the dense model gives, text-only samples by
    their own tokens.

    Args:
        deletion: in force, repaired or not; its restore() takes the healing back too, bit for bit.
        processor: words the samples; a tokenizer for a text-only model.
        samples: at least LEAST_SAMPLES.
        options: how long and how.
        seed: draws the held-out share, the order of the samples and the first low-rank updates.
        facts: what is noted on the model.
        checkpoint: a folder, so that the same call goes on after kill -9; to be removed by whoever has saved
            the healed model; None for nowhere.
        key: what decides the healed weights besides the options, such as a plan's hash.
        tell: told after every step.
        ranks: processes that share every step, each with a batch of its own; all get the same weights.
        prompter: words the samples, in place of a new one.
        answers: the dense model's that are known from before, to which new ones are added.

    Returns:
        Steps, the one whose weights were kept (0 if none was better than the start), tokens, seconds, and
        the losses before and after on the held-out share.

    Raises:
        InputError: too few samples, or a checkpoint cannot be written.
        SurgeryError: quantized or offloaded weights, nothing to train, or a loss that is not finite; the
            deletion is as it was.
    """
    start, model, ranks = time.perf_counter(), deletion.model, ranks or Ranks()
    prompter = prompter or Prompter(processor)
    check_weights(model)
    train, held_out = split(samples, options, seed)
    check_samples(len(train) + len(held_out), options, ranks.world)
    own = slice(ranks.rank, None, ranks.world)
    with evaluation_mode(model), _frozen(model), deletion.undone():
        taught = answered_texts(model, prompter, train, options.batch, own, answers)
        asked = answered_texts(model, prompter, held_out, options.batch, own, answers)
    kept = Checkpoint(checkpoint, files.digest([key, options.to_json(), seed, VERSION, ranks.world]))
    with evaluation_mode(model), _frozen(model), _recomputed(model, options.checkpointing):
        overlay = overlay_on(decoder_layers(model), options, seed)
        try:
            for parameter in overlay.parameters().values():
                parameter.requires_grad_(True)
            training = Training(deletion, overlay, taught, asked, options, seed, kept, tell, ranks)
            progress = ranks.each(training.run)
        finally:
            weights = overlay.finish()
    for parameter in (p for parameters in weights.values() for p in parameters.values()):
        parameter.requires_grad_(True)
    outcome = {**_described(progress, options), "seconds": time.perf_counter() - start}
    if not outcome["kept"] and ranks.rank == 0:
        log.warning(
            "healing gained nothing: in %d steps the loss on held-out samples never fell below its start, so "
            "the weights stay as they were; more steps, samples or another learning_rate (now %g) may help",
            progress.step,
            options.peak,
        )
    deletion.attach(weights, HEALING, {**(facts or {}), OUTCOME: outcome})
    return outcome


def _described(progress: Progress, options: HealingOptions) -> dict[str, float]:
    """What is told of a healing once it is over."""
    return {
        "steps": progress.step,
        "kept": progress.kept(options),
        "tokens": progress.tokens,
        "loss_before": round(progress.held_out[0], 6),
        "loss_after": round(progress.held_out[progress.best], 6),
    }


def healing_facts(options: HealingOptions) -> dict[str, Any]:
    """What a plan says about such a healing, apart from its calibration set."""
    return {**options.to_json(), "version": VERSION, "teacher": TEACHER}


def check_machine(options: HealingOptions) -> None:
    """Refuse what this installation cannot do.

    Raises:
        MissingExtraError: peft is not there.
    """
    if options.method == "lora" and find_spec("peft") is None:
        raise MissingExtraError("heal method is 'lora', which needs peft; pip install peft, or heal in full")


def check_samples(count: int, options: HealingOptions, world: int = 1) -> None:
    """Refuse too few samples.

    Raises:
        InputError: names the number.
    """
    least = max(LEAST_SAMPLES, 0 if world == 1 else 2 * world * options.batch)
    least = max(least, int(options.batch / (1 - options.held_out)) - 1)
    while least - held_out_of(least, options) < options.batch:
        least += 1
    if count < least:
        raise InputError(
            f"heal has {count} calibration samples for steps of {options.batch}; allowed: at least {least}"
        )


def held_out_of(count: int, options: HealingOptions) -> int:
    """How many of so many distinct samples are never trained on."""
    return max(1, round(options.held_out * count))


def check_weights(model: nn.Module) -> None:
    """Refuse weights that cannot be trained.

    Raises:
        SurgeryError: they are quantized or not in memory.
    """
    if getattr(model, "is_quantized", False) or getattr(model, "hf_quantizer", None):
        raise SurgeryError("heal needs plain weights, but these are quantized; load the model unquantized")
    if any(parameter.device.type == "meta" for parameter in model.parameters()):
        raise SurgeryError("heal needs all weights in memory, but some are offloaded; give more memory")


def split(samples: Sequence[Sample], options: HealingOptions, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Samples to train on, and the held-out share; never the same sample in both."""
    distinct = list({sample.digest: sample for sample in samples}.values())
    random.Random(f"held out {seed}").shuffle(distinct)
    count = held_out_of(len(distinct), options)
    return distinct[count:], distinct[:count]


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """No weight wants a gradient inside; what did wants one again after."""
    wanted = {parameter: parameter.requires_grad for parameter in model.parameters()}
    model.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, value in wanted.items():
            parameter.requires_grad_(value)


@contextmanager
def _recomputed(model: Any, wanted: bool) -> Iterator[None]:
    """Activations are recomputed inside: transformers does that in training mode, here without dropout."""
    if not wanted:
        yield
        return
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    try:
        yield
    finally:
        model.gradient_checkpointing_disable()
        model.eval()
