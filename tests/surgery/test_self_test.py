"""The self-test passes sound models of every kind and names what is wrong with broken ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from families.properties import build, named
from families.table import FAMILIES
from torch import nn
from transformers import LlavaProcessor, PreTrainedModel

from lmms_topoprune.errors import SelfTestError
from lmms_topoprune.surgery import decoder_layers, delete_layers, self_test, text_config

SOUND = ("llama", "qwen2_vl", "qwen3_5", "gemma3", "gemma3n", "mllama", "lfm2_vl", "idefics2", "kosmos2")


@pytest.mark.parametrize("name", named(SOUND))
def test_passes_dense_and_pruned_models(name: str) -> None:
    model = build(FAMILIES[name], "sdpa")
    self_test(model)
    delete_layers(model, FAMILIES[name].sets[0])
    self_test(model)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_passes_half_precision(dtype: torch.dtype) -> None:
    self_test(build(FAMILIES["llama"], "sdpa").to(dtype))


def test_takes_a_processor_and_leaves_the_mode_alone(
    tiny_llava: Callable[..., PreTrainedModel], embedded_processor: LlavaProcessor
) -> None:
    model = tiny_llava(layers=3)
    model.train()
    model.model.vision_tower.eval()
    self_test(model, embedded_processor)
    assert model.training and not model.model.vision_tower.training


def without_renumbering(model: PreTrainedModel) -> None:
    config = text_config(model)
    del decoder_layers(model)[1]
    config.num_hidden_layers -= 1


def without_config(model: PreTrainedModel) -> None:
    delete_layers(model, [1])
    text_config(model).num_hidden_layers += 1


def two_layers_of_one_number(model: PreTrainedModel) -> None:
    decoder_layers(model)[1].self_attn.layer_idx = 2


def nan_weight(model: PreTrainedModel) -> None:
    with torch.no_grad():
        decoder_layers(model)[3].mlp.down_proj.weight[0, 0] = torch.nan


def infinite_weight(model: PreTrainedModel) -> None:
    with torch.no_grad():
        model.get_output_embeddings().weight[0, 0] = torch.inf


def forgetful_layer(model: PreTrainedModel) -> None:
    """Computes something else for a single token, as a layer does that misreads the cache."""

    def forget(module: nn.Module, args: Any, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        return output if hidden.shape[1] > 1 else hidden.flip(-1)

    decoder_layers(model)[3].register_forward_hook(forget)


def failing_layer(model: PreTrainedModel) -> None:
    decoder_layers(model)[3].mlp.down_proj.weight = nn.Parameter(torch.ones(1, 1))


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        (without_renumbering, "layer 1, self_attn: layer_idx is 2, the configuration makes it 1"),
        (without_config, "does not describe the model: SurgeryError: .* has 5, which no configuration says"),
        (two_layers_of_one_number, "layer_idx is 2, the configuration makes it 1"),
        (nan_weight, "are not finite"),
        (infinite_weight, "are not finite"),
        (forgetful_layer, "with and without the cache differ"),
        (failing_layer, "generation fails .*: RuntimeError"),
    ],
)
def test_names_what_is_broken(break_it: Callable[[PreTrainedModel], None], reason: str) -> None:
    model = build(FAMILIES["llava_llama"], "sdpa")
    break_it(model)
    with pytest.raises(SelfTestError, match=reason):
        self_test(model)


def test_sees_per_layer_lists_that_were_not_sliced() -> None:
    model = build(FAMILIES["gemma3"], "sdpa")
    types = list(text_config(model).layer_types)
    delete_layers(model, [0])
    text_config(model).layer_types = types
    with pytest.raises(SelfTestError, match="does not describe the model"):
        self_test(model)


def test_sees_a_copy_of_the_configuration_that_was_left_behind() -> None:
    model = build(FAMILIES["llama"], "sdpa")
    decoder_layers(model)[0].mlp.config = type(model.config).from_dict(model.config.to_dict())
    delete_layers(model, [1])
    decoder_layers(model)[0].mlp.config.num_hidden_layers = 6
    with pytest.raises(SelfTestError, match=r"mlp\.config says 6 layers, the model has 5"):
        self_test(model)


def test_shows_an_image_to_a_model_that_refuses_text_alone(
    tiny_llava: Callable[..., PreTrainedModel],
    embedded_processor: LlavaProcessor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_llava(layers=3)
    generate, seen = model.generate, []

    def with_image_only(**inputs: Any) -> Any:
        if "pixel_values" not in inputs:
            raise TypeError("where is the image?")
        seen.append(inputs["generation_config"].use_cache)
        return generate(**inputs)

    monkeypatch.setattr(model, "generate", with_image_only)
    with pytest.raises(
        SelfTestError, match=r"generation fails \(with a processor .*\): TypeError: where is the image\?"
    ):
        self_test(model)
    self_test(model, embedded_processor)
    assert seen == [True, False]
