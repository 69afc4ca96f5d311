"""Turn a finished training run into the shipped model folder, with its card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from lmms_topoprune import files
from lmms_topoprune.embedded import build
from lmms_topoprune.embedded.evaluate import generated_accuracy
from lmms_topoprune.embedded.recipe import Recipe
from lmms_topoprune.errors import InputError

CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: image-text-to-text
---
# The embedded vision-language model

A small LLaVA that answers questions about rendered scenes (shape, color, size, count, existence,
left/right/above/below, extremes; open, yes/no and multiple choice). It exists so that pruning can be
tried, tested and compared without a hub and without a GPU. It knows nothing of the real world.

- Architecture: `LlavaForConditionalGeneration`, {vision} CLIP layers of width {vision_width} on {image} x
  {image} pixels (16 image tokens), a Llama decoder of {layers} layers of width {width};
  {parameters:.1f} M parameters in bfloat16.
- Tokenizer: byte-level BPE of {vocab} tokens; any text can be written, the questions' words are
  single tokens.
- Data: scenes drawn by `lmms_topoprune.embedded.scenes`; a scene's content decides its split, so the
  test and calibration scenes are never trained on.

## Training

    {command}

The vision tower is pretrained for {vision_steps} steps to tell what is in each cell, then frozen. The
decoder is trained with {shallow} layers for {shallow_steps} steps, grown to {layers} by stacking, and
trained on for {deep_steps} steps: {batch} scenes of {context} tokens a step, Muon for the hidden matrices
and AdamW for the rest. There is no layer dropout and no other measure that would make it robust to the
removal of layers.

| step | decoder layers | loss | accuracy, first token | multiple choice |
|---:|---:|---:|---:|---:|
{curve}

Accuracy in this table: unseen calibration-split scenes, 60 questions a kind, mean over the kinds.

## Figures

Exact match of generated answers, {per_kind} questions a kind on unseen test-split scenes, bfloat16 weights
computed in float32:

| kind | accuracy |
|---|---:|
{figures}

"Overall" is the mean over the kinds, multiple choice left out.
Reproduce them with `python -m lmms_topoprune.embedded evaluate`.
"""


def release(
    run: Path, target: Path, *, command: str, per_kind: int = 300
) -> tuple[LlavaForConditionalGeneration, dict[str, float]]:
    """Write the model folder: weights, processor, template, and the card with measured figures.

    Raises:
        InputError: the run is not finished.
    """
    recipe = _finished(run)
    processor = build.build_processor()
    model = build.build_model(processor, recipe.size, recipe.seed)
    model.load_state_dict(load_file(run / f"model-{recipe.steps}.safetensors"))
    model.to(torch.bfloat16).save_pretrained(target)
    processor.save_pretrained(target)
    loaded = LlavaForConditionalGeneration.from_pretrained(target, dtype=torch.float32).eval()
    figures = generated_accuracy(loaded, processor, per_kind)
    curve = json.loads((run / "checkpoint.json").read_text())["curve"]
    text = _card(recipe, loaded, processor, curve, figures, command, per_kind)
    files.write_text(target / "README.md", text)
    return loaded, figures


def _finished(run: Path) -> Recipe:
    recipe = Recipe.from_json(json.loads((run / "recipe.json").read_text()))
    step = json.loads((run / "checkpoint.json").read_text())["step"]
    if step != recipe.steps:
        raise InputError(f"{run} stands at step {step} of {recipe.steps}; train it to the end first")
    return recipe


def _card(
    recipe: Recipe,
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    curve: list[dict[str, Any]],
    figures: dict[str, float],
    command: str,
    per_kind: int,
) -> str:
    size = recipe.size
    rows = [
        f"| {p['step']} | {recipe.shallow_layers if p['step'] <= recipe.shallow_steps else size.layers} "
        f"| {p['loss']:.3f} | {100 * p['overall']:.1f} % | {100 * p['choice']:.1f} % |"
        for p in curve
    ]
    return CARD.format(
        vision=size.vision_layers,
        vision_width=size.vision_width,
        image=model.config.vision_config.image_size,
        layers=size.layers,
        width=size.width,
        parameters=model.num_parameters() / 1e6,
        vocab=len(processor.tokenizer),
        command=command,
        vision_steps=recipe.vision.steps,
        shallow=recipe.shallow_layers,
        shallow_steps=recipe.shallow_steps,
        deep_steps=recipe.deep_steps,
        batch=recipe.batch,
        context=recipe.context,
        curve="\n".join(rows),
        per_kind=per_kind,
        figures="\n".join(f"| {kind} | {100 * value:.1f} % |" for kind, value in figures.items()),
    )
