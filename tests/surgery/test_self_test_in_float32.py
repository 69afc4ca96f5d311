"""Where half precision cannot tell rounding from a mistake, the self-test looks again in float32."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from families.properties import build, logits
from families.table import FAMILIES
from torch import nn
from transformers import PreTrainedModel

from lmms_topoprune.errors import SelfTestError
from lmms_topoprune.surgery import decoder_layers, self_test
from lmms_topoprune.surgery.self_test import in_float32, text_prompt


def half(name: str = "llava_llama", dtype: torch.dtype = torch.bfloat16) -> PreTrainedModel:
    return build(FAMILIES[name], "sdpa").to(dtype)


def disturbed(model: PreTrainedModel, *dtypes: torch.dtype) -> PreTrainedModel:
    """Layer 3 computes something else for a single token, as with a cache, in these precisions."""

    def disturb(module: nn.Module, args: Any, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        wrong = hidden.dtype in dtypes and hidden.shape[1] == 1
        return hidden + 0.5 * hidden.flip(-1) if wrong else output

    decoder_layers(model)[3].register_forward_hook(disturb)
    return model


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_float32_decides(dtype: torch.dtype) -> None:
    self_test(disturbed(half(dtype=dtype), dtype))
    with pytest.raises(SelfTestError, match="with and without the cache differ"):
        self_test(disturbed(half(dtype=dtype), dtype, torch.float32))


def test_a_quantized_model_is_judged_as_it_is() -> None:
    """Its kernels round whatever they are given."""
    model = disturbed(half(), torch.bfloat16)
    model.hf_quantizer = object()
    with pytest.raises(SelfTestError, match="with and without the cache differ"):
        self_test(model)


@pytest.mark.parametrize("name", ["llama", "llava_llama", "qwen2_vl", "nemotron_h_omni"])
def test_a_part_is_float32_only_while_it_computes_and_the_results_are_those_of_a_copy(name: str) -> None:
    model = half(name)
    weights = [tensor.clone() for tensor in (*model.parameters(), *model.buffers())]
    inputs, wide = text_prompt(model), []
    expected = logits(half(name).float(), inputs)
    layers = decoder_layers(model)
    noted = [
        layer.register_forward_hook(lambda *_: wide.append(sum(map(is_wide, layers)))) for layer in layers
    ]
    with in_float32(model):
        assert sum(map(is_wide, model.modules())) == 0
        found = logits(model, inputs)
        with pytest.raises((TypeError, AttributeError)):
            layers[0]("no tensor", and_no="name")
    for hook in noted:
        hook.remove()
    assert found.dtype == torch.float32 and (found - expected).abs().max() < 1e-5 * expected.abs().max()
    assert wide == [1] * len(layers)
    for before, after in zip(weights, (*model.parameters(), *model.buffers()), strict=True):
        assert before.dtype == after.dtype and torch.equal(before, after)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def is_wide(module: nn.Module) -> bool:
    """Whether all of its half-precision weights are float32 now."""
    kinds = {parameter.dtype for parameter in module.parameters()}
    return kinds == {torch.float32}
