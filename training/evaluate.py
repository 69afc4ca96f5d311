"""Accuracy on unseen scenes, by form and kind of question; for both models."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from PIL import Image
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from lmms_topoprune.embedded import questions, scenes
from lmms_topoprune.embedded.questions import as_choice
from training.batches import Wording, pixels
from training.conversations import KINDS

FORMS = ("yesno", "open", "choice")


def cells(kinds: tuple[str, ...] = KINDS) -> tuple[str, ...]:
    """Every form and kind that can be asked, as "open:color"; existence is yes or no alone."""
    return tuple(
        f"{form}:{kind}" for form in FORMS for kind in kinds if kind != "existence" or form == "yesno"
    )


@dataclass(frozen=True)
class Item:
    """One image, one prompt and the right answer."""

    image: Image.Image
    text: str
    answer: str


def items(cell: str, count: int, split: str, seed: int) -> Iterator[Item]:
    """Draw questions about scenes of a split.

    Args:
        cell: one of `cells()`.
        count: how many.
        split: a split of scenes.SPLITS.
        seed: draws scenes and questions.
    """
    form, kind = cell.split(":")
    rng = random.Random(f"evaluate-{cell}-{seed}")
    while count:
        scene = scenes.random_scene(rng, split)
        question = questions.ask(rng, scene, kind, form == "yesno")
        if question is None:
            continue
        text, answer = question.text, question.answer
        if form == "choice":
            text, _, answer = as_choice(rng, question)
        yield Item(scenes.render(scene), text, answer)
        count -= 1


def summary(by_cell: Mapping[str, float]) -> dict[str, float]:
    """The cells, the mean of every form, and the mean of all cells as "overall"."""
    means = {}
    for form in FORMS:
        values = [value for cell, value in by_cell.items() if cell.startswith(form)]
        if values:
            means[form] = sum(values) / len(values)
    return {**by_cell, **means, "overall": sum(by_cell.values()) / len(by_cell)}


@torch.no_grad()
def first_token_accuracy(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    wording: Wording,
    per_cell: int,
    split: str = "calibration",
    seed: int = 1,
) -> dict[str, float]:
    """Share of answers whose first token is right, one forward pass a cell; no generation.

    Answers of one kind differ in their first token, so this is the accuracy of a model that ends its
    answers where it should.
    """
    run = processor.image_token * scenes.GRID**2
    tokenizer = processor.tokenizer
    result = {}
    for cell in cells():
        drawn = list(items(cell, per_cell, split, seed))
        texts = [wording(item.text, item.answer, True) for item in drawn]
        prompts = [prompt.replace(processor.image_token, run) for prompt, _ in texts]
        wanted = [ids[0] for ids in tokenizer([a for _, a in texts], add_special_tokens=False)["input_ids"]]
        batch = tokenizer(
            prompts, padding=True, padding_side="right", add_special_tokens=False, return_tensors="pt"
        )
        images = pixels(processor, [item.image for item in drawn])
        hidden = model.model(input_ids=batch["input_ids"], pixel_values=images, use_cache=False)[0]
        last = batch["attention_mask"].sum(1) - 1
        guesses = model.lm_head(hidden[torch.arange(per_cell), last]).argmax(-1)
        result[cell] = (guesses == torch.tensor(wanted)).float().mean().item()
    return summary(result)


@torch.no_grad()
def generated_accuracy(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    per_cell: int,
    *,
    asked: tuple[str, ...] | None = None,
    split: str = "test",
    seed: int = 2,
    batch: int = 50,
) -> dict[str, float]:
    """Share of exactly right generated answers by cell: the processor, the template, the KV cache."""
    result = {}
    for cell in asked or cells():
        drawn = list(items(cell, per_cell, split, seed))
        right = 0
        for start in range(0, per_cell, batch):
            part = drawn[start : start + batch]
            texts = generate(model, processor, part)
            right += sum(text == item.answer for text, item in zip(texts, part, strict=True))
        result[cell] = right / per_cell
    return summary(result)


def generate(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, asked: list[Item], tokens: int = 4
) -> list[str]:
    """Greedy answers of at most `tokens` tokens, in one left-padded batch."""
    prompts = [
        processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": item.text}]}],
            add_generation_prompt=True,
        )
        for item in asked
    ]
    inputs = processor(
        images=[item.image for item in asked],
        text=prompts,
        padding=True,
        padding_side="left",
        return_tensors="pt",
    )
    out = model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
    texts = processor.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return [text.strip() for text in texts]
