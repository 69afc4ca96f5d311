"""English text in a training that is about something else, so that the decoder keeps its language."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn.functional import kl_div, log_softmax
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerBase

from lmms_topoprune.errors import InputError


class English:
    """Rows of running text by step: the same seed and step give the same rows.

    Args:
        folder: JSON files, lists of paragraphs.
        tokenizer: the model's.
        seed: draws the rows.
        size: rows a step.
        context: tokens a row.

    Raises:
        InputError: the folder holds no text, or less than one row of it.
    """

    def __init__(
        self, folder: Path, tokenizer: PreTrainedTokenizerBase, *, seed: int, size: int, context: int
    ) -> None:
        self.seed, self.size, self.context = seed, size, context
        paragraphs = [
            p for file in sorted(folder.glob("*.json")) for p in json.loads(file.read_text(encoding="utf-8"))
        ]
        self.tokens = torch.tensor(tokenizer("\n\n".join(paragraphs), add_special_tokens=False)["input_ids"])
        if len(self.tokens) < context:
            raise InputError(
                f"{folder} holds {len(self.tokens)} tokens of English; needed: {context} or more"
            )

    def draw(self, step: int) -> torch.Tensor:
        """Int64[size, context] token ids."""
        rng = random.Random(f"{self.seed}-english-{step}")
        starts = [rng.randrange(len(self.tokens) - self.context + 1) for _ in range(self.size)]
        return torch.stack([self.tokens[start : start + self.context] for start in starts])


def forgetting(
    model: LlavaForConditionalGeneration, ids: torch.Tensor, switch: Callable[[bool], None]
) -> torch.Tensor:
    """KL(before || now) of the next token, nats a token: what a model forgets while it learns something else.

    Li and Hoiem 2016, arXiv 1606.09282.

    Args:
        model: with updates over frozen weights.
        ids: Int64[B, T].
        switch: turns the updates off and on; off is the model before.
    """

    def predicted() -> torch.Tensor:
        hidden = model.model.language_model(input_ids=ids, use_cache=False)[0]
        return log_softmax(model.lm_head(hidden).float().flatten(0, 1), dim=-1)  # (B * T, vocabulary)

    switch(False)
    with torch.no_grad():
        before = predicted()
    switch(True)
    return kl_div(predicted(), before, log_target=True, reduction="batchmean")
