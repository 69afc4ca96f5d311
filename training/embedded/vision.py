"""Pretraining of the vision tower: what is in each cell, read off its patch by linear heads.

LLaVA starts from a vision tower that can see already (Liu et al. 2023, arXiv 2304.08485); this is
that step for rendered scenes. It takes a minute, and without it the decoder spends most of its
training on telling a diamond from a square.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from torch import nn
from transformers import CLIPVisionModel, LlavaProcessor

from lmms_topoprune.embedded import scenes
from training.batches import pixels
from training.embedded.recipe import VisionRecipe

# Class 0 of every attribute is an empty cell.
ATTRIBUTES = {"shape": scenes.SHAPES, "color": tuple(scenes.COLORS), "size": scenes.SIZES}


def cell_classes(scene: scenes.Scene) -> torch.Tensor:
    """The class of every cell in every attribute, int64 (GRID * GRID, 3)."""
    classes = torch.zeros(scenes.GRID**2, len(ATTRIBUTES), dtype=torch.long)
    for thing in scene.things:
        for column, (name, values) in enumerate(ATTRIBUTES.items()):
            classes[thing.row * scenes.GRID + thing.col, column] = 1 + values.index(getattr(thing, name))
    return classes


def pretrain(
    tower: CLIPVisionModel,
    processor: LlavaProcessor,
    recipe: VisionRecipe,
    seed: int,
    say: Callable[[str], None],
) -> None:
    """Train the tower in place; its patches' last hidden states then hold shape, color and size."""
    device = tower.device
    torch.manual_seed(seed)
    heads = nn.ModuleList(nn.Linear(tower.config.hidden_size, 1 + len(v)) for v in ATTRIBUTES.values()).to(
        device
    )
    parameters = [*tower.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.lr, total_steps=recipe.steps, pct_start=0.1
    )
    # Empty cells are three quarters of all; the loss counts them a tenth.
    weights = [torch.tensor([0.1] + [1.0] * len(v), device=device) for v in ATTRIBUTES.values()]
    for step in range(recipe.steps):
        rng = random.Random(f"vision-{seed}-{step}")
        drawn = [scenes.random_scene(rng, "train") for _ in range(recipe.batch)]
        images = pixels(processor, [scenes.render(s) for s in drawn]).to(device)
        classes = torch.stack([cell_classes(s) for s in drawn]).to(device)
        features = tower(pixel_values=images, output_hidden_states=True).hidden_states[-1][:, 1:]
        losses = [
            nn.functional.cross_entropy(head(features).flatten(0, 1), classes[..., i].flatten(), weights[i])
            for i, head in enumerate(heads)
        ]
        torch.stack(losses).sum().backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        if (step + 1) % 100 == 0:
            found = ", ".join(f"{n} {x.item():.4f}" for n, x in zip(ATTRIBUTES, losses, strict=True))
            say(f"vision step {step + 1}: {found}")
