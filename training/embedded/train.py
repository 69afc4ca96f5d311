"""Training of the embedded model.

The vision tower is trained first and then frozen, as in LLaVA; the decoder is trained at its full depth,
from nothing or from an earlier release. No layer dropout, no loss on intermediate layers, no layer that is
a copy of another: the result is as sensitive to deletion as any model.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from transformers import LlavaForConditionalGeneration

from lmms_topoprune._util.packaged import model_path
from training.align import align
from training.batches import Batches, loss_of
from training.conversations import EARLY, LATER
from training.embedded import build, vision
from training.embedded.recipe import Recipe
from training.embedded.start import start_from
from training.evaluate import first_token_accuracy
from training.loop import Run, Say, newest
from training.optimizer import Schedule, muon_and_adamw


def train(
    recipe: Recipe,
    folder: Path,
    *,
    steps: int,
    decay: int,
    every: int = 100,
    source: Path | None = None,
    compiled: bool = False,
    per_cell: int = 40,
    say: Say = print,
) -> LlavaForConditionalGeneration:
    """Train the embedded model, going on from the checkpoint in `folder` if there is one.

    Args:
        recipe: what to train; a folder holds one recipe's run.
        folder: checkpoints and the learning curve go here.
        steps: optimizer steps in all.
        decay: the last of them, over which the learning rates fall to zero.
        every: steps between checkpoints and accuracy figures.
        source: an earlier release's folder, for recipes that start from one; the shipped one if None.
        compiled: use torch.compile on the decoder layers (needs a C++ compiler).
        per_cell: questions of every form and kind for the learning curve's figures.
        say: receives lines of progress.

    Raises:
        InputError: the folder holds another recipe's run.
    """
    schedule = Schedule(steps, recipe.warmup, decay)
    processor = build.build_processor()
    model = build.build_model(processor, recipe.size, recipe.seed)
    # On short sequences plain matrix products beat the fused attention kernel.
    model.set_attn_implementation("eager")
    if newest(folder, schedule) is None and recipe.start:
        start_from(source or model_path(), model, processor, recipe.start)
    elif newest(folder, schedule) is None:
        vision.pretrain(model.model.vision_tower, processor, recipe.vision, recipe.seed, say)
        align(model, processor, places=True, steps=recipe.align, seed=recipe.seed, say=say)
    model.model.vision_tower.requires_grad_(False)
    optimizer = muon_and_adamw(model, muon_lr=recipe.muon_lr, lr=recipe.lr, weight_decay=recipe.weight_decay)
    run = Run(folder, asdict(recipe), schedule, model, optimizer)
    if compiled:
        for layer in model.model.language_model.layers:
            layer.compile()
    batches = Batches(processor, build.wording, seed=recipe.seed, size=recipe.batch, context=recipe.context)
    run.train(
        lambda step: loss_of(model, batches.draw(step, EARLY if step < recipe.early else LATER)),
        lambda: first_token_accuracy(model, processor, build.wording, per_cell),
        every=every,
        say=say,
    )
    return model
