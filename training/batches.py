"""Training batches: conversations about random scenes, the same for the same seed and step."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from lmms_topoprune.embedded import scenes
from training.conversations import Mix, conversation

IGNORE = -100
MISFITS = 4
"""So many turns may be too long for what is left of a row before it is given up and padded."""

# (question, answer, whether the image comes first) -> prompt and answer as the chat template words them.
Wording = Callable[[str, str, bool], tuple[str, str]]


@dataclass(frozen=True)
class Batch:
    """input_ids and labels (B, context) int64, right-padded; pixel_values (B, 3, H, W) float32."""

    input_ids: torch.Tensor
    labels: torch.Tensor
    pixel_values: torch.Tensor


class Batches:
    """Training batches by step and mix: the same seed and step give the same batch.

    Args:
        processor: its tokenizer and the normalization of its images are used.
        wording: puts turns into the model's words.
        seed: draws scenes and conversations.
        size: scenes a batch.
        context: tokens a scene, filled with as many turns as fit.
    """

    def __init__(
        self, processor: LlavaProcessor, wording: Wording, *, seed: int, size: int, context: int
    ) -> None:
        self.processor, self.wording = processor, wording
        self.seed, self.size, self.context = seed, size, context
        self.image_run = processor.image_token * scenes.GRID**2

    def draw(self, step: int, mix: Mix) -> Batch:
        rng = random.Random(f"{self.seed}-{step}")
        drawn = [scenes.random_scene(rng, "train") for _ in range(self.size)]
        rows = [self._row(rng, scene, mix) for scene in drawn]
        ids = torch.tensor([ids for ids, _ in rows])
        labels = torch.tensor([labels for _, labels in rows])
        return Batch(ids, labels, pixels(self.processor, [scenes.render(s) for s in drawn]))

    def _row(self, rng: random.Random, scene: scenes.Scene, mix: Mix) -> tuple[list[int], list[int]]:
        """Turns about one scene until the context is full: token ids and labels, equally long."""
        ids: list[int] = []
        labels: list[int] = []
        misfits = 0
        for question, answer in conversation(rng, scene, mix):
            texts = self.wording(question, answer, not ids)
            texts = (texts[0].replace(self.processor.image_token, self.image_run), texts[1])
            before, after = self.processor.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
            if len(ids) + len(before) + len(after) > self.context:
                misfits += 1
                if misfits == MISFITS:
                    break
                continue
            ids += before + after
            labels += [IGNORE] * len(before) + after
        room = self.context - len(ids)
        return ids + [self.processor.tokenizer.pad_token_id] * room, labels + [IGNORE] * room


def pixels(processor: LlavaProcessor, images: list[Image.Image]) -> torch.Tensor:
    """What the processor makes of scene images, (B, 3, H, W), without its per-image overhead."""
    config = processor.image_processor
    array = np.stack([np.asarray(i, dtype=np.float32) for i in images]) / 255
    array = (array - np.array(config.image_mean, np.float32)) / np.array(config.image_std, np.float32)
    return torch.from_numpy(array.transpose(0, 3, 1, 2).copy())


def loss_of(model: LlavaForConditionalGeneration, batch: Batch) -> torch.Tensor:
    """Cross-entropy over the answers' tokens, whose logits alone are computed.

    Right padding lies after the answers, so no attention mask is needed.
    """
    hidden = model.model(input_ids=batch.input_ids, pixel_values=batch.pixel_values, use_cache=False)[0]
    targets = batch.labels[:, 1:]
    wanted = targets != IGNORE
    logits = model.lm_head(hidden[:, :-1][wanted]).float()  # (answer tokens, vocabulary)
    return nn.functional.cross_entropy(logits, targets[wanted])
