"""Training batches: conversations about random scenes, the same for the same seed and step."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from transformers import LlavaProcessor

from lmms_topoprune.embedded import build, scenes

IGNORE = -100


@dataclass(frozen=True)
class Mix:
    """What the turns of a conversation are: shares of captions, drills and multiple choice, and kinds."""

    captions: float = 0.2
    drills: float = 0.4
    choices: float = 0.25
    kinds: tuple[str, ...] = scenes.KINDS


# Captions and drills supervise what one-word answers need in passing; without them colors and
# shapes are told apart, but hardly ever found by one another. Once they are found, what is left is
# comparing and counting.
SHALLOW = Mix()
DEEP = Mix(0.05, 0.15, 0.4, (*scenes.KINDS, "count", "count", "count", "relation", "relation"))


def _turn(rng: random.Random, scene: scenes.Scene, mix: Mix) -> tuple[str, str]:
    return scenes.drill(rng, scene) if rng.random() < mix.drills else _question(rng, scene, mix)


def _question(rng: random.Random, scene: scenes.Scene, mix: Mix) -> tuple[str, str]:
    """A prompt and its answer; a few carry the instructions that lmms-eval's tasks append."""
    while True:
        question = scenes.ask(rng, scene, rng.choice(mix.kinds), rng.random() < 0.5)
        if question is None:
            continue
        if not question.is_yesno and rng.random() < mix.choices:
            text, _, letter = scenes.as_choice(rng, question)
            return text + (build.SUFFIXES["choice"] if rng.random() < 0.1 else ""), letter
        style = rng.random()
        if style < 0.05:
            return question.text + build.SUFFIXES["short"], question.answer
        if style < 0.1 and question.is_yesno:
            return question.text + build.SUFFIXES["yesno"], question.answer
        return question.text, question.answer


@dataclass(frozen=True)
class Batch:
    """input_ids and labels (B, context) int64, right-padded; pixel_values (B, 3, H, W) float32."""

    input_ids: torch.Tensor
    labels: torch.Tensor
    pixel_values: torch.Tensor

    def to(self, device: str) -> Batch:
        return Batch(self.input_ids.to(device), self.labels.to(device), self.pixel_values.to(device))


class Batches:
    """Training batches by step and mix: the same seed and step give the same batch."""

    def __init__(self, processor: LlavaProcessor, *, seed: int, size: int, context: int) -> None:
        self.processor = processor
        self.seed, self.size, self.context = seed, size, context
        self.image_run = build.IMAGE_TOKEN * scenes.GRID**2

    def draw(self, step: int, mix: Mix) -> Batch:
        rng = random.Random(f"{self.seed}-{step}")
        drawn = [scenes.random_scene(rng, "train") for _ in range(self.size)]
        rows = [self._conversation(rng, scene, mix) for scene in drawn]
        ids = torch.tensor([ids for ids, _ in rows])
        labels = torch.tensor([labels for _, labels in rows])
        return Batch(ids, labels, pixels(self.processor, [scenes.render(s) for s in drawn]))

    def _conversation(self, rng: random.Random, scene: scenes.Scene, mix: Mix) -> tuple[list[int], list[int]]:
        """Turns about one scene until the context is full: token ids and labels, equally long."""
        is_captioned = rng.random() < mix.captions
        first = (build.DESCRIBE, scenes.caption(scene)) if is_captioned else _turn(rng, scene, mix)
        ids, labels = self._encode(*first, image=True)
        while True:
            more_ids, more_labels = self._encode(*_turn(rng, scene, mix), image=False)
            room = self.context - len(ids)
            if len(more_ids) > room:
                return ids + [self.processor.tokenizer.pad_token_id] * room, labels + [IGNORE] * room
            ids, labels = ids + more_ids, labels + more_labels

    def _encode(self, question: str, answer: str, image: bool) -> tuple[list[int], list[int]]:
        prompt = build.turn(question, image=image).replace(build.IMAGE_TOKEN, self.image_run)
        tokens = self.processor.tokenizer([prompt, f" {answer}{build.END}"], add_special_tokens=False)
        before, after = tokens["input_ids"]
        return before + after, [IGNORE] * len(before) + after


def pixels(processor: LlavaProcessor, images: list[Image.Image]) -> torch.Tensor:
    """What the processor makes of scene images, (B, 3, H, W), without its per-image overhead."""
    config = processor.image_processor
    array = np.stack([np.asarray(i, dtype=np.float32) for i in images]) / 255
    array = (array - np.array(config.image_mean, np.float32)) / np.array(config.image_std, np.float32)
    return torch.from_numpy(array.transpose(0, 3, 1, 2).copy())
