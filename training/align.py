"""Alignment of the projector, before the decoder is trained: a cell's feature becomes its words.

LLaVA trains its projector on captions first (Liu et al. 2023, arXiv 2304.08485). What is in a cell of a
scene is known, so here the projector's output is fitted to the embeddings of the words for it. That needs
no pass through the decoder and takes seconds; afterwards a question's words and the image's tokens that
they mean are alike, so that attention finds one by the other from the first step.
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
SCENES = 32


def words(scene: scenes.Scene) -> list[str]:
    """What to call each cell, in the order of the image's tokens: "small red circle" or EMPTY."""
    named = {(t.row, t.col): f"{t.size} {t.name}" for t in scene.things}
    return [named.get(divmod(cell, scenes.GRID), EMPTY) for cell in range(scenes.GRID**2)]


def align(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    *,
    places: bool,
    steps: int,
    seed: int,
    say: Say,
) -> None:
    """Fit the projector in place.

    Args:
        model: its vision tower and its word embeddings stay as they are.
        processor: the model's.
        places: add a random vector for each row and each column to the words' embeddings. A pretrained
            decoder knows places by the tokens' order; one that starts from nothing is helped by them.
        steps: optimizer steps.
        seed: draws the scenes and the places' vectors.
        say: receives three lines of progress.
    """
    embeddings = model.get_input_embeddings().weight.detach()  # (V, d)
    spread = embeddings.var(0).sum()
    generator = torch.Generator().manual_seed(seed)
    axes = torch.randn(2, scenes.GRID, embeddings.shape[1], generator=generator) * embeddings.std() * places
    cells = (axes[0][:, None] + axes[1][None]).flatten(0, 1)  # (GRID * GRID, d)

    def meaning(text: str) -> torch.Tensor:
        ids = processor.tokenizer(f" {text}", add_special_tokens=False)["input_ids"]
        return embeddings[ids].sum(0)

    names = [
        f"{size} {color} {shape}"
        for size in scenes.SIZES
        for color in scenes.COLORS
        for shape in scenes.SHAPES
    ]
    known = {name: meaning(name) for name in (*names, EMPTY)}
    projector = model.model.multi_modal_projector
    optimizer = torch.optim.AdamW(projector.parameters(), lr=2e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        rng = random.Random(f"align-{seed}-{step}")
        drawn = [scenes.random_scene(rng, "train") for _ in range(SCENES)]
        called = [words(scene) for scene in drawn]
        targets = torch.stack([torch.stack([known[name] for name in row]) + cells for row in called])
        with torch.no_grad():
            images = pixels(processor, [scenes.render(s) for s in drawn])
            tower = model.model.vision_tower(pixel_values=images, output_hidden_states=True)
        features = projector(tower.hidden_states[-1][:, 1:])  # (SCENES, GRID * GRID, d)
        errors = (features - targets).pow(2).sum(-1) / spread
        # Empty cells are three quarters of all; the loss counts them a tenth.
        weights = torch.tensor([[0.1 if name == EMPTY else 1.0 for name in row] for row in called])
        loss = (errors * weights).sum() / weights.sum()
        loss.backward()
        nn.utils.clip_grad_norm_(projector.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        if (step + 1) % 100 == 0:
            say(f"alignment step {step + 1}: error {loss.item():.3f} of a word's variance")
