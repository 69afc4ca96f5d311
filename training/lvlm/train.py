"""Training of the pretrained LVLM: the projector and the decoder, on the embedded model's conversations.

The decoder gets low-rank updates; the vision tower, the word embeddings and the head tied to them stay as
they are. The point is a decoder whose depth was made by pretraining.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import LlavaForConditionalGeneration

from training.align import align
from training.batches import Batches, loss_of
from training.conversations import EARLY, LATE
from training.evaluate import first_token_accuracy
from training.loop import Run, Say, newest
from training.lvlm import build
from training.lvlm.adapter import Adapter
from training.optimizer import Schedule, adamw


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, but for the parts it starts from and how long it is trained.

    Attributes:
        align: steps of the projector's alignment.
        early: steps with many captions and drills; fewer come after them.
        warmup: steps of linear warm-up.
        batch: scenes a step.
        context: tokens a scene, filled with as many questions as fit.
        rank: of the decoder's updates.
        decoder_lr, projector_lr: peak learning rates.
        bfloat16: matrix products are done in it, by autocast, which takes less than half the time on
            processors with AVX-512 BF16 or AMX (benchmarks/bfloat16.py). The weights stay float32.
        seed: draws the projector, the scenes and the questions.
    """

    align: int = 300
    early: int = 400
    warmup: int = 30
    batch: int = 8
    context: int = 128
    rank: int = 16
    decoder_lr: float = 1e-3
    projector_lr: float = 1e-3
    bfloat16: bool = True
    seed: int = 0


def train(
    recipe: Recipe,
    folder: Path,
    *,
    language: Path,
    vision: Path,
    steps: int,
    decay: int,
    every: int = 100,
    compiled: bool = False,
    per_cell: int = 12,
    say: Say = print,
) -> LlavaForConditionalGeneration:
    """Train the LVLM, going on from the checkpoint in `folder` if there is one.

    Args:
        recipe: how; a folder holds one recipe's run.
        folder: checkpoints and the learning curve go here.
        language, vision: folders of SmolLM2 and of the embedded model, whose tower is taken.
        steps: optimizer steps in all.
        decay: the last of them, over which the learning rates fall to zero.
        every: steps between checkpoints and accuracy figures.
        compiled: use torch.compile on the decoder layers (needs a C++ compiler).
        per_cell: questions of every form and kind for the learning curve's figures.
        say: receives lines of progress.

    Raises:
        InputError: the folder holds another recipe's run.
    """
    schedule = Schedule(steps, recipe.warmup, decay)
    processor = build.build_processor(language, vision)
    model = build.build_model(processor, language, vision, recipe.seed)
    model.set_attn_implementation("eager")  # faster than the fused kernel on short sequences
    if newest(folder, schedule) is None:
        align(model, processor, places=False, steps=recipe.align, seed=recipe.seed, say=say)
    Adapter(model, recipe.rank, recipe.seed)
    optimizer = adamw(
        [
            (model.model.language_model, recipe.decoder_lr),
            (model.model.multi_modal_projector, recipe.projector_lr),
        ]
    )
    run = Run(folder, asdict(recipe), schedule, model, optimizer)
    if compiled:
        for layer in model.model.language_model.layers:
            layer.compile()

    def loss_at(step: int) -> torch.Tensor:
        batch = batches.draw(step, EARLY if step < recipe.early else LATE)
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
            return loss_of(model, batch)

    batches = Batches(processor, build.wording, seed=recipe.seed, size=recipe.batch, context=recipe.context)
    run.train(
        loss_at,
        lambda: first_token_accuracy(model, processor, build.wording, per_cell),
        every=every,
        say=say,
    )
    return model
