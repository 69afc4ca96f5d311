"""A start from an earlier release: the chosen layers do what they did, fresh ones nothing at first."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from lmms_topoprune.errors import InputError
from training import depth
from training.embedded.start import Origin, start_from

Make = Callable[..., LlavaForConditionalGeneration]


@pytest.fixture(scope="module")
def earlier(
    tiny_llava: Make, embedded_processor: LlavaProcessor, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("earlier")
    tiny_llava(layers=4, seed=1).save_pretrained(folder)
    embedded_processor.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("origins", "chosen"),
    [
        ((Origin(0), None, Origin(3), Origin(2), None), (0, 3, 2)),
        ((Origin(0), Origin(3, mlp=False), Origin(3, heads=())), (0, 3)),  # attention and MLP in two layers
    ],
)
def test_with_what_is_fresh_a_model_starts_as_its_chosen_layers(
    origins: tuple[Origin | None, ...],
    chosen: tuple[int, ...],
    tiny_llava: Make,
    embedded_processor: LlavaProcessor,
    earlier: Path,
) -> None:
    model = tiny_llava(layers=len(origins), seed=2)
    start_from(earlier, model, embedded_processor, origins)
    smaller = LlavaForConditionalGeneration.from_pretrained(earlier, dtype=torch.float32)
    layers = smaller.model.language_model.layers
    smaller.model.language_model.layers = nn.ModuleList(layers[i] for i in chosen)
    judged = next(depth.answers(embedded_processor, 1))
    with torch.no_grad():
        ours, theirs = (m.eval()(**judged.inputs, use_cache=False).logits for m in (model, smaller))
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_attention_heads_are_shared_out(
    tiny_llava: Make, embedded_processor: LlavaProcessor, earlier: Path
) -> None:
    model = tiny_llava(layers=2, seed=2)
    rest = tuple(range(1, model.config.text_config.num_attention_heads))
    start_from(earlier, model, embedded_processor, (Origin(1, heads=(0,), mlp=False), Origin(1, heads=rest)))
    old = LlavaForConditionalGeneration.from_pretrained(earlier, dtype=torch.float32)
    whole = old.model.language_model.layers[1].self_attn
    head_dim = whole.head_dim
    states = torch.randn(1, 5, whole.o_proj.weight.shape[1])
    first, second = (layer.self_attn for layer in model.model.language_model.layers)
    for here, attention in ((slice(head_dim), first), (slice(head_dim, None), second)):
        assert torch.equal(attention.q_proj.weight[here], whole.q_proj.weight[here])
        assert not torch.equal(attention.q_proj.weight, whole.q_proj.weight)
    # What the heads write adds up to what all of them wrote.
    both = first.o_proj(states) + second.o_proj(states)
    assert torch.allclose(both, whole.o_proj(states), atol=1e-6)


def test_nothing_is_taken_twice(tiny_llava: Make, embedded_processor: LlavaProcessor, earlier: Path) -> None:
    model = tiny_llava(layers=2, seed=2)
    for pair in ((Origin(1), Origin(1, heads=())), (Origin(1, mlp=False), Origin(1, heads=(0,), mlp=False))):
        with pytest.raises(InputError, match="twice"):
            start_from(earlier, model, embedded_processor, pair)


def test_a_fresh_layer_learns(tiny_llava: Make, embedded_processor: LlavaProcessor, earlier: Path) -> None:
    model = tiny_llava(layers=2, seed=2)
    start_from(earlier, model, embedded_processor, (Origin(0), None))
    judged = next(depth.answers(embedded_processor, 1))
    model(**judged.inputs, use_cache=False).logits.square().mean().backward()
    fresh = model.model.language_model.layers[1]
    assert fresh.mlp.down_proj.weight.grad.abs().max() > 0
    assert fresh.self_attn.o_proj.weight.grad.abs().max() > 0


def test_new_words_keep_vectors_of_their_own(
    tiny_llava: Make, embedded_processor: LlavaProcessor, earlier: Path
) -> None:
    processor = copy.deepcopy(embedded_processor)
    processor.tokenizer.add_tokens(["zebra"])
    model = tiny_llava(layers=1, seed=2)
    model.resize_token_embeddings(len(processor.tokenizer), mean_resizing=False)
    start_from(earlier, model, processor, (Origin(0),))
    old = LlavaForConditionalGeneration.from_pretrained(earlier, dtype=torch.float32)
    count = len(embedded_processor.tokenizer)
    assert torch.equal(model.get_input_embeddings().weight[:count], old.get_input_embeddings().weight)
    assert torch.equal(model.lm_head.weight[:count], old.lm_head.weight)
    assert 0 < model.lm_head.weight[count:].std() < 10 * old.lm_head.weight.std()
