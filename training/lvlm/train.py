"""Training of the pretrained LVLM: the projector and the decoder, on the embedded model's conversations.

The decoder gets low-rank updates; the vision tower, the word embeddings and the head tied to them stay as
they are. The point is a decoder whose depth was made by pretraining.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn
from transformers import LlavaForConditionalGeneration

from lmms_topoprune.errors import InputError
from training.align import align
from training.batches import Batches, loss_of
from training.conversations import EARLY, LATER
from training.english import English, forgetting
from training.evaluate import first_token_accuracy
from training.loop import Run, Say, newest
from training.lvlm import build
from training.lvlm.adapter import Adapter
from training.optimizer import Schedule, adamw


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, but for the parts it starts from and how long it is trained.

    Attributes:
        goes_on: it starts from an earlier release's updates and projector; `early` is 0 then.
        align: steps of the projector's alignment, unless it goes on.
        early: steps with many captions and drills; fewer come after them.
        warmup: steps of linear warm-up.
        batch: scenes a step.
        context: tokens a scene, filled with as many questions as fit.
        english: rows of English text a step, of `context` tokens, on which the decoder has to predict what
            it predicted before. 0 for none.
        rank: of the decoder's updates.
        decoder_lr, projector_lr: peak learning rates.
        bfloat16: matrix products are done in it, by autocast, which takes less than half the time on
            processors with AVX-512 BF16 or AMX (benchmarks/bfloat16.py). The weights stay float32.
        seed: draws the projector, the scenes and the questions.
    """

    goes_on: bool = False
    align: int = 300
    early: int = 400
    warmup: int = 30
    batch: int = 8
    context: int = 128
    english: int = 1
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
    texts: Path | None,
    steps: int,
    decay: int,
    updates: Path | None = None,
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
        texts: a folder of English texts; needed if the recipe has rows of them.
        steps: optimizer steps in all.
        decay: the last of them, over which the learning rates fall to zero.
        updates: the earlier release, for recipes that go on.
        every: steps between checkpoints and accuracy figures.
        compiled: use torch.compile on the decoder layers (needs a C++ compiler).
        per_cell: questions of every form and kind for the learning curve's figures.
        say: receives lines of progress.

    Raises:
        InputError: the folder holds another recipe's run, there is no English text and the recipe has rows
            of it, or no earlier release and it goes on from one.
    """
    if recipe.goes_on != (updates is not None):
        raise InputError(
            f"goes_on is {recipe.goes_on} with --updates {updates}; allowed: both, or neither of them"
        )
    schedule = Schedule(steps, recipe.warmup, decay)
    processor = build.build_processor(language, vision)
    model = build.build_model(processor, language, vision, recipe.seed)
    model.set_attn_implementation("eager")  # faster than the fused kernel on short sequences
    english = None
    if recipe.english:
        if texts is None:
            raise InputError("the recipe trains on English text; name a folder of it with --texts")
        english = English(
            texts, processor.tokenizer, seed=recipe.seed, size=recipe.english, context=recipe.context
        )
    starts = newest(folder, schedule) is None
    if starts and not recipe.goes_on:
        align(model, processor, places=False, steps=recipe.align, seed=recipe.seed, say=say)
    adapter = Adapter(model, recipe.rank, recipe.seed)
    if starts and updates is not None:
        adapter.load(updates)
    if recipe.bfloat16:
        _round_frozen_maps(model)
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
        batch = batches.draw(step, EARLY if step < recipe.early else LATER)
        with rounded():
            loss = loss_of(model, batch)
            if english:
                loss = loss + forgetting(model, english.draw(step), adapter.updates.switch)
            return loss

    def score() -> dict[str, float]:
        with rounded():
            return first_token_accuracy(model, processor, build.wording, per_cell)

    rounded = partial(torch.autocast, "cpu", torch.bfloat16, enabled=recipe.bfloat16)
    batches = Batches(processor, build.wording, seed=recipe.seed, size=recipe.batch, context=recipe.context)
    run.train(loss_at, score, every=every, say=say)
    return model.float()


def _round_frozen_maps(model: LlavaForConditionalGeneration) -> None:
    """Keep in bfloat16 what autocast would round in every product: frozen weights of linear maps."""
    for module in model.modules():
        is_head = module is model.get_output_embeddings()  # its weights are the embeddings', too
        if isinstance(module, nn.Linear) and not (is_head or module.weight.requires_grad):
            module.weight.data = module.weight.data.to(torch.bfloat16)
