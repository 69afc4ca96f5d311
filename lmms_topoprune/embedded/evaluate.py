"""Accuracy of the embedded model on unseen scenes, by question kind."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from PIL import Image
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from lmms_topoprune.embedded import build, scenes
from lmms_topoprune.embedded.batches import pixels

KINDS = (*scenes.KINDS, "choice")
CHOICES = tuple(f"choice:{kind}" for kind in scenes.KINDS if kind != "existence")


@dataclass(frozen=True)
class Item:
    """One image, one prompt and the right answer."""

    image: Image.Image
    text: str
    answer: str


def items(kind: str, count: int, split: str, seed: int) -> Iterator[Item]:
    """Draw questions about scenes of a split.

    Args:
        kind: a kind of scenes.KINDS, open or yes/no; "choice" is multiple choice of any kind,
            "choice:size" of one.
        count: how many.
        split: a split of scenes.SPLITS.
        seed: draws scenes and questions.
    """
    rng = random.Random(f"evaluate-{kind}-{seed}")
    while count:
        scene = scenes.random_scene(rng, split)
        form, _, of_kind = kind.partition(":")
        is_choice = form == "choice"
        asked = (of_kind or rng.choice(scenes.KINDS)) if is_choice else kind
        question = scenes.ask(rng, scene, asked, not is_choice and rng.random() < 0.5)
        if question is None or (is_choice and question.is_yesno):
            continue
        text, answer = question.text, question.answer
        if is_choice:
            text, _, answer = scenes.as_choice(rng, question)
        yield Item(scenes.render(scene), text, answer)
        count -= 1


@torch.no_grad()
def first_token_accuracy(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    per_kind: int = 60,
    split: str = "calibration",
    seed: int = 1,
) -> dict[str, float]:
    """Share of right answers by kind in one forward pass; every answer is one token long.

    "overall" is the mean over the question kinds of the scenes, multiple choice left out.
    """
    run = build.IMAGE_TOKEN * scenes.GRID**2
    result = {}
    for kind in KINDS:
        drawn = list(items(kind, per_kind, split, seed))
        prompts = [build.turn(i.text, image=True).replace(build.IMAGE_TOKEN, run) for i in drawn]
        wanted = [processor.tokenizer(f" {i.answer}")["input_ids"][0] for i in drawn]
        batch = processor.tokenizer(prompts, padding=True, padding_side="right", return_tensors="pt")
        hidden = model.model(
            input_ids=batch["input_ids"].to(model.device),
            pixel_values=pixels(processor, [i.image for i in drawn]).to(model.device),
            use_cache=False,
        )[0]
        last = batch["attention_mask"].sum(1) - 1
        guesses = model.lm_head(hidden[torch.arange(per_kind), last]).argmax(-1).cpu()
        result[kind] = (guesses == torch.tensor(wanted)).float().mean().item()
    result["overall"] = sum(result[k] for k in scenes.KINDS) / len(scenes.KINDS)
    return result


@torch.no_grad()
def generated_accuracy(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    per_kind: int,
    split: str = "test",
    seed: int = 2,
    batch: int = 50,
) -> dict[str, float]:
    """Share of exactly right generated answers by kind: the processor, the template, the KV cache."""
    result = {}
    for kind in (*KINDS, *CHOICES):
        drawn = list(items(kind, per_kind, split, seed))
        right = 0
        for start in range(0, per_kind, batch):
            part = drawn[start : start + batch]
            prompts = [
                processor.apply_chat_template(
                    [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": i.text}]}],
                    add_generation_prompt=True,
                )
                for i in part
            ]
            inputs = processor(
                images=[i.image for i in part], text=prompts, padding=True, return_tensors="pt"
            )
            out = model.generate(**inputs.to(model.device), max_new_tokens=4, do_sample=False)
            texts = processor.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            right += sum(t.strip() == i.answer for t, i in zip(texts, part, strict=True))
        result[kind] = right / per_kind
    result["overall"] = sum(result[k] for k in scenes.KINDS) / len(scenes.KINDS)
    return result
