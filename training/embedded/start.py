"""A start from an earlier release: some of its layers, fresh ones between them, and its words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from transformers import LlavaForConditionalGeneration, LlavaProcessor


@torch.no_grad()
def start_from(
    source: Path,
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    layers: Sequence[int | None],
) -> None:
    """Fill a random model with an earlier release's weights, in place.

    Fresh layers begin as identity: the two matrices that write to the residual stream are zero.

    Args:
        source: the earlier release's folder; its widths and vision tower are the model's.
        model: as deep as `layers` is long.
        processor: the model's. Words that the earlier tokenizer did not have keep random vectors.
        layers: for every layer the earlier one that it starts as, none twice; None is a fresh one.
    """
    earlier = LlavaForConditionalGeneration.from_pretrained(source, dtype=torch.float32)
    old, new = earlier.model, model.model
    new.vision_tower.load_state_dict(old.vision_tower.state_dict())
    new.multi_modal_projector.load_state_dict(old.multi_modal_projector.state_dict())
    new.language_model.norm.load_state_dict(old.language_model.norm.state_dict())
    for layer, index in zip(new.language_model.layers, layers, strict=True):
        if index is None:
            nn.init.zeros_(layer.self_attn.o_proj.weight)
            nn.init.zeros_(layer.mlp.down_proj.weight)
        else:
            layer.load_state_dict(old.language_model.layers[index].state_dict())
    known = LlavaProcessor.from_pretrained(source).tokenizer.get_vocab()
    pairs = [(i, known[word]) for word, i in processor.tokenizer.get_vocab().items() if word in known]
    here, there = (torch.tensor(ids) for ids in zip(*pairs, strict=True))
    for ours, theirs in (
        (model.get_input_embeddings(), earlier.get_input_embeddings()),
        (model.lm_head, earlier.lm_head),
    ):
        nn.init.normal_(ours.weight, std=theirs.weight.std().item())
        ours.weight[here] = theirs.weight[there]
