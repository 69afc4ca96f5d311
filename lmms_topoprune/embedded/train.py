"""Training of the embedded model: shallow first, then grown to full depth and trained on.

The vision tower is trained first and then frozen, as in LLaVA. The decoder's recipe is progressive
stacking (Gong et al. 2019, "Efficient Training of BERT by Progressively Stacking"; Du et al. 2024,
arXiv 2405.15319): the shallow decoder learns to answer, the deep one starts from copies of its
layers and is trained on until they have parted. No layer dropout, no loss on intermediate layers:
the result is as sensitive to deletion as any model.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from lmms_topoprune._util import files
from lmms_topoprune.embedded import build, vision
from lmms_topoprune.embedded.batches import DEEP, IGNORE, SHALLOW, Batch, Batches
from lmms_topoprune.embedded.evaluate import first_token_accuracy
from lmms_topoprune.embedded.optimizer import Optimizer
from lmms_topoprune.embedded.recipe import Recipe
from lmms_topoprune.errors import InputError


def loss_of(model: LlavaForConditionalGeneration, batch: Batch) -> torch.Tensor:
    """Cross-entropy over the answers' tokens. Right padding lies after them, so no mask is needed."""
    hidden = model.model(input_ids=batch.input_ids, pixel_values=batch.pixel_values, use_cache=False)[0]
    targets = batch.labels[:, 1:]
    wanted = targets != IGNORE
    logits = model.lm_head(hidden[:, :-1][wanted]).float()
    return nn.functional.cross_entropy(logits, targets[wanted])


def grow(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, recipe: Recipe
) -> LlavaForConditionalGeneration:
    """The full-depth model whose decoder is the shallow one's, stacked on itself."""
    deep = build.build_model(processor, recipe.size, recipe.seed)
    weights = model.state_dict()
    prefix = "model.language_model.layers."
    target = deep.state_dict()
    for name in target:
        source = name
        if name.startswith(prefix):
            index, rest = name[len(prefix) :].split(".", 1)
            source = f"{prefix}{int(index) % recipe.shallow_layers}.{rest}"
        target[name] = weights[source]
    deep.load_state_dict(target)
    return deep


class Run:
    """One training run in a folder: its checkpoints, its learning curve, where it stands."""

    def __init__(self, recipe: Recipe, folder: Path, compiled: bool, say: Callable[[str], None]) -> None:
        self.recipe, self.folder, self.compiled = recipe, folder, compiled
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.processor = build.build_processor()
        self._claim()
        pointer = folder / "checkpoint.json"
        state: dict[str, Any] = (
            json.loads(pointer.read_text()) if pointer.exists() else {"step": 0, "curve": []}
        )
        self.step: int = state["step"]
        self.curve: list[dict[str, Any]] = state["curve"]
        # The step of the growth itself was still saved with the shallow model.
        is_shallow = 0 < self.step <= recipe.shallow_steps or (self.step == 0 < recipe.shallow_steps)
        size = replace(recipe.size, layers=recipe.shallow_layers) if is_shallow else recipe.size
        model = build.build_model(self.processor, size, recipe.seed)
        if self.step == 0:
            vision.pretrain(model.model.vision_tower, self.processor, recipe.vision, recipe.seed, say)
        self._use(model)
        if self.step:
            self.model.load_state_dict(load_file(folder / f"model-{self.step}.safetensors"))
            self.optimizer.load(load_file(folder / f"optimizer-{self.step}.safetensors"))

    def _claim(self) -> None:
        described = json.dumps(asdict(self.recipe), sort_keys=True)
        noted = self.folder / "recipe.json"
        if noted.exists() and noted.read_text() != described:
            raise InputError(f"{self.folder} holds the run of another recipe; pass an empty folder")
        files.write_text(noted, described)

    def _use(self, model: LlavaForConditionalGeneration) -> None:
        # Short sequences: plain bfloat16 matmuls beat the fused attention kernel on a CPU.
        model.model.vision_tower.requires_grad_(False)
        model.set_attn_implementation("eager" if self.device == "cpu" else "sdpa")
        if self.compiled:
            for layer in model.model.language_model.layers:
                layer.compile()
        self.model = model.to(self.device)
        self.optimizer = Optimizer(self.model, self.recipe)

    def advance(self, batch: Batch) -> float:
        """One optimizer step; grows the model first if its time has come."""
        if self.step == self.recipe.shallow_steps > 0:
            self._use(grow(self.model, self.processor, self.recipe))
        with torch.autocast(self.device, torch.bfloat16):
            loss = loss_of(self.model, batch.to(self.device))
        loss.backward()
        self.optimizer.step(self.step)
        self.step += 1
        return loss.item()

    def save(self, loss: float) -> dict[str, Any]:
        """Add a point to the learning curve and write a checkpoint; returns the point."""
        scores = first_token_accuracy(self.model.eval(), self.processor)
        self.model.train()
        self.curve.append({"step": self.step, "loss": round(loss, 4), **scores})
        weights = {k: v.contiguous() for k, v in self.model.state_dict().items()}
        save_file(weights, self.folder / f"model-{self.step}.safetensors")
        save_file(self.optimizer.tensors(), self.folder / f"optimizer-{self.step}.safetensors")
        # The pointer is written last, so a killed run goes on from the checkpoint before.
        files.write_json(self.folder / "checkpoint.json", {"step": self.step, "curve": self.curve})
        for old in self.folder.glob("*-*.safetensors"):
            if old.stem.split("-")[1] != str(self.step):
                old.unlink()
        return self.curve[-1]


def train(
    recipe: Recipe,
    folder: Path,
    *,
    say: Callable[[str], None] = print,
    every: int = 200,
    compiled: bool = False,
) -> Run:
    """Train the embedded model, going on from the checkpoint in `folder` if there is one.

    Args:
        recipe: what to train; a folder holds one recipe's run.
        folder: checkpoints and the learning curve go here.
        say: receives one line of progress every 20 steps.
        every: steps between checkpoints and accuracy figures.
        compiled: use torch.compile on the decoder layers (needs a C++ compiler).

    Raises:
        InputError: the folder holds another recipe's run.
    """
    run = Run(recipe, folder, compiled, say)
    batches = Batches(run.processor, seed=recipe.seed, size=recipe.batch, context=recipe.context)
    started, losses = time.monotonic(), []
    while run.step < recipe.steps:
        mix = SHALLOW if run.step < recipe.shallow_steps else DEEP
        losses.append(run.advance(batches.draw(run.step, mix)))
        if run.step % 20 == 0:
            pace = (time.monotonic() - started) / len(losses)
            left = pace * (recipe.steps - run.step) / 60
            say(f"step {run.step} loss {np.mean(losses[-20:]):.4f} {pace:.3f} s/step, {left:.0f} min left")
        if run.step % every == 0 or run.step == recipe.steps:
            say(json.dumps(run.save(float(np.mean(losses[-every:])))))
    return run
