"""Turn a finished training run into the shipped model folder, with its card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from training.cards import curve_table, figures_table
from training.embedded import build
from training.embedded.recipe import Recipe
from training.evaluate import generated_accuracy
from training.loop import finished, load_parameters

CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: image-text-to-text
---
# The embedded vision-language model

A small LLaVA that answers questions about rendered scenes: what an object looks like, how many there are,
where they are to one another, and questions that need several steps (comparing two counts, finding one
object by way of another); open, yes/no and multiple choice. It exists so that pruning can be tried,
tested and compared without a hub and without a GPU. It knows nothing of the real world.

- Architecture: `LlavaForConditionalGeneration`, {vision} CLIP layers of width {vision_width} on {image} x
  {image} pixels (16 image tokens), a Llama decoder of {layers} layers of width {width};
  {parameters:.1f} M parameters in bfloat16.
- Tokenizer: byte-level BPE of {vocab} tokens; any text can be written, the questions' words are
  single tokens.
- Data: scenes drawn by `lmms_topoprune.embedded.scenes`; a scene's content decides its split, so the
  test and calibration scenes are never trained on.

## Training

    python -m training embedded runs/embedded --steps {steps} --decay {decay} --seed {seed}{source} --compiled
    python -m training release-embedded runs/embedded lmms_topoprune/embedded/model

{start}

The decoder is trained for {steps} steps of {batch} scenes and {context} tokens each, with Muon for the
layers' matrices and AdamW for the rest. No layer is a copy of another, there is no layer dropout and no other
measure that would make it robust to the removal of layers.

{curve}

Accuracy in this table: first tokens on unseen calibration-split scenes, means over the kinds of each form.

## Figures

Exact match of generated answers in percent, {per_cell} questions each on unseen test-split scenes,
bfloat16 weights computed in float32:

{figures}

Overall: {overall:.1f} %, the mean of all. Reproduce them with `python -m training evaluate`.
"""

FROM_NOTHING = """\
The vision tower is pretrained for {steps} steps to tell what is in each cell, then frozen; the projector
is aligned with the words of what is in a cell. All {layers} layers are there from the first step."""
FROM_EARLIER = """\
The vision tower and the projector are the earlier release's (EARLIER, as of commit 0afd0e0). Of the {layers}
decoder layers {whole} start as one of its layers, {parts} as a part of one (attention heads, its MLP, or
both), nothing twice{fresh}. What is new in a layer does nothing before the first step."""


def release(run: Path, target: Path, *, per_cell: int) -> dict[str, float]:
    """Write the model folder: weights, processor, template, and the card with measured figures.

    Returns:
        Accuracy by cell, as in `generated_accuracy`.

    Raises:
        InputError: the run is not finished.
    """
    checkpoint = finished(run)
    recipe = Recipe.from_json(json.loads((run / "recipe.json").read_text()))
    state = json.loads((checkpoint / "state.json").read_text())
    processor = build.build_processor()
    model = build.build_model(processor, recipe.size, recipe.seed)
    load_parameters(model, checkpoint)
    model.to(torch.bfloat16).save_pretrained(target)
    processor.save_pretrained(target)
    loaded = LlavaForConditionalGeneration.from_pretrained(target, dtype=torch.float32).eval()
    figures = generated_accuracy(loaded, processor, per_cell)
    (target / "README.md").write_text(_card(recipe, loaded, processor, state, figures, per_cell))
    return figures


def _card(
    recipe: Recipe,
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    state: dict[str, Any],
    figures: dict[str, float],
    per_cell: int,
) -> str:
    size = recipe.size
    return CARD.format(
        vision=size.vision_layers,
        vision_width=size.vision_width,
        image=model.config.vision_config.image_size,
        layers=size.layers,
        width=size.width,
        parameters=model.num_parameters() / 1e6,
        vocab=len(processor.tokenizer),
        start=_start(recipe),
        seed=recipe.seed,
        source=" --source EARLIER" if recipe.start else "",
        steps=state["end"][0],
        decay=state["end"][1],
        batch=recipe.batch,
        context=recipe.context,
        curve=curve_table(state["curve"]),
        per_cell=per_cell,
        figures=figures_table(figures),
        overall=100 * figures["overall"],
    )


def _start(recipe: Recipe) -> str:
    """Where the weights come from, in words."""
    if not recipe.start:
        return FROM_NOTHING.format(steps=recipe.vision.steps, layers=recipe.size.layers)
    taken = [origin for origin in recipe.start if origin is not None]
    whole = sum(origin.is_whole for origin in taken)
    new = len(recipe.start) - len(taken)
    fresh = f", and {new} fresh" if new else ""
    return FROM_EARLIER.format(layers=len(recipe.start), whole=whole, parts=len(taken) - whole, fresh=fresh)
