"""A start from an earlier release: some of its layers, parts of others, fresh ones between, and its words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from lmms_topoprune.errors import InputError


@dataclass(frozen=True)
class Origin:
    """What a layer starts as: an earlier release's layer, or a part of it, with fresh weights for the rest.

    Attributes:
        layer: the earlier one's index.
        heads: of its attention heads, those that are taken; None takes all.
        mlp: whether its MLP is taken.
    """

    layer: int
    heads: tuple[int, ...] | None = None
    mlp: bool = True

    @property
    def is_whole(self) -> bool:
        """Whether all of the earlier layer is taken."""
        return self.heads is None and self.mlp


@torch.no_grad()
def start_from(
    source: Path,
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    origins: Sequence[Origin | None],
) -> None:
    """Fill a random model with an earlier release's weights, in place.

    What is fresh does nothing at first: the weights that write to the residual stream are zero.

    Args:
        source: the earlier release's folder; its widths and vision tower are the model's.
        model: as deep as `origins` is long.
        processor: the model's. Words that the earlier tokenizer did not have keep random vectors.
        origins: what every layer starts as, nothing twice; None is a fresh one.

    Raises:
        InputError: something is taken twice.
    """
    earlier = LlavaForConditionalGeneration.from_pretrained(source, dtype=torch.float32)
    _check_distinct(origins, earlier.config.text_config.num_attention_heads)
    old, new = earlier.model, model.model
    new.vision_tower.load_state_dict(old.vision_tower.state_dict())
    new.multi_modal_projector.load_state_dict(old.multi_modal_projector.state_dict())
    new.language_model.norm.load_state_dict(old.language_model.norm.state_dict())
    for layer, origin in zip(new.language_model.layers, origins, strict=True):
        if origin is None:
            nn.init.zeros_(layer.self_attn.o_proj.weight)
            nn.init.zeros_(layer.mlp.down_proj.weight)
        else:
            _take(layer, old.language_model.layers[origin.layer], origin)
    known = LlavaProcessor.from_pretrained(source).tokenizer.get_vocab()
    pairs = [(i, known[word]) for word, i in processor.tokenizer.get_vocab().items() if word in known]
    here, there = (torch.tensor(ids) for ids in zip(*pairs, strict=True))
    for ours, theirs in (
        (model.get_input_embeddings(), earlier.get_input_embeddings()),
        (model.lm_head, earlier.lm_head),
    ):
        nn.init.normal_(ours.weight, std=theirs.weight.std().item())
        ours.weight[here] = theirs.weight[there]


def _check_distinct(origins: Sequence[Origin | None], heads: int) -> None:
    """Refuse to take anything twice: no layer is a copy of another."""
    taken = [
        (origin.layer, part)
        for origin in origins
        if origin is not None
        for part in (*(range(heads) if origin.heads is None else origin.heads), *["mlp"] * origin.mlp)
    ]
    if twice := {part for part in taken if taken.count(part) > 1}:
        raise InputError(f"origins take {sorted(twice, key=str)[0]} twice, as (layer, head or mlp)")


def _take(layer: nn.Module, earlier: nn.Module, origin: Origin) -> None:
    """Give a fresh layer what its origin names of an earlier one."""
    fresh = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    layer.load_state_dict(earlier.state_dict())
    if origin.heads is not None:
        attention = layer.self_attn
        fresh_heads = torch.ones(attention.config.num_attention_heads, dtype=torch.bool)
        fresh_heads[list(origin.heads)] = False
        rows = fresh_heads.repeat_interleave(attention.head_dim)
        for name in ("q_proj", "k_proj", "v_proj"):
            attention.get_submodule(name).weight[rows] = fresh[f"self_attn.{name}.weight"][rows]
        attention.o_proj.weight[:, rows] = 0
    if not origin.mlp:
        for name in ("gate_proj", "up_proj"):
            layer.mlp.get_submodule(name).weight.copy_(fresh[f"mlp.{name}.weight"])
        nn.init.zeros_(layer.mlp.down_proj.weight)
