"""Alignment of the projector, before anything else is trained: a cell's feature becomes its words.

LLaVA trains its projector on captions first (Liu et al. 2023, arXiv 2304.08485). What is in a cell of a
scene is known, so here the projector's output is fitted to the embeddings of the words for it; that
needs no pass through the decoder and takes seconds.
"""

from __future__ import annotations

import random

import torch
from torch import nn
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from lmms_topoprune.embedded import scenes
from training.batches import pixels
from training.loop import Say

EMPTY = "nothing"
STEPS = 300
SCENES = 32


def words(scene: scenes.Scene) -> list[str]:
    """What to call each cell, in the order of the image's tokens: "small red circle" or EMPTY."""
    named = {(t.row, t.col): f"{t.size} {t.name}" for t in scene.things}
    return [named.get(divmod(cell, scenes.GRID), EMPTY) for cell in range(scenes.GRID**2)]


def align(model: LlavaForConditionalGeneration, processor: LlavaProcessor, seed: int, say: Say) -> None:
    """Fit the projector in place."""
    embeddings = model.get_input_embeddings().weight.detach()  # (V, d)
    spread = embeddings.var(0).sum()

    def meaning(text: str) -> torch.Tensor:
        ids = processor.tokenizer(f" {text}", add_special_tokens=False)["input_ids"]
        return embeddings[ids].sum(0)

    projector = model.model.multi_modal_projector
    optimizer = torch.optim.AdamW(projector.parameters(), lr=2e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=STEPS, pct_start=0.1)
    known: dict[str, torch.Tensor] = {}
    for step in range(STEPS):
        rng = random.Random(f"align-{seed}-{step}")
        drawn = [scenes.random_scene(rng, "train") for _ in range(SCENES)]
        names = [name for scene in drawn for name in words(scene)]
        targets = torch.stack([known.setdefault(n, known[n] if n in known else meaning(n)) for n in names])
        images = pixels(processor, [scenes.render(s) for s in drawn])
        with torch.no_grad():
            tower = model.model.vision_tower(pixel_values=images, output_hidden_states=True)
        features = projector(tower.hidden_states[-1][:, 1:]).flatten(0, 1)  # (cells, d)
        errors = (features - targets).pow(2).sum(1) / spread
        # Empty cells are three quarters of all; the loss counts them a tenth.
        weights = torch.tensor([0.1 if name == EMPTY else 1.0 for name in names])
        loss = (errors * weights).sum() / weights.sum()
        loss.backward()
        nn.utils.clip_grad_norm_(projector.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        if (step + 1) % 100 == 0:
            say(f"alignment step {step + 1}: error {loss.item():.3f} of a word's variance")
