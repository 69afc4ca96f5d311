"""The smallest inputs that a model can be tried on."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from PIL import Image
from transformers import PreTrainedConfig, PreTrainedModel

from lmms_topoprune.surgery.locate import walk_configs

TEXT = "Describe what you see in one sentence."
TOKENS = 8
SIDE = 224


def text_prompt(model: PreTrainedModel, processor: Any = None) -> dict[str, torch.Tensor]:
    """input_ids and attention_mask (1, T): a sentence if there is a tokenizer, arbitrary tokens otherwise.

    Where the model tells kinds of tokens apart, all are its text: PaliGemma lets a prompt see itself whole
    only if that is said.
    """
    tokenizer = getattr(processor, "tokenizer", processor)
    ids = tokenizer(TEXT).input_ids if callable(tokenizer) else arbitrary_tokens(model.config)
    input_ids = torch.tensor([ids], device=model.device)
    inputs = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}
    if "token_type_ids" in inspect.signature(model.forward).parameters:
        inputs["token_type_ids"] = torch.zeros_like(input_ids)
    return inputs


def arbitrary_tokens(config: PreTrainedConfig) -> list[int]:
    """Evenly spread token ids, none of which the configuration gives a meaning."""
    special = set()
    for _, section in walk_configs(config):
        for key, value in vars(section).items():
            if "token" in key:
                special |= {value} if isinstance(value, int) else set()
    ordinary = [token for token in range(config.get_text_config().vocab_size) if token not in special]
    return ordinary[:: max(1, len(ordinary) // TOKENS)][1 : TOKENS + 1]


def image_prompt(model: PreTrainedModel, processor: Any) -> Mapping[str, Any] | None:
    """A gray image and a sentence; None if the processor takes no images."""
    if not hasattr(processor, "image_processor"):
        return None
    image = Image.new("RGB", (SIDE, SIDE), "gray")
    if getattr(processor, "chat_template", None):
        content = [{"type": "image", "image": image}, {"type": "text", "text": TEXT}]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
    else:
        inputs = processor(images=image, text=TEXT, return_tensors="pt")
    return inputs.to(model.device, model.dtype)
