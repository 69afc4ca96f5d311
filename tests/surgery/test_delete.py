"""delete_layers, restore, undeletable and the fingerprint on single models."""

from __future__ import annotations

import pytest
import torch
import transformers as hf
from families import properties as holds
from families.table import FAMILIES, text
from torch import nn

from lmms_topoprune.errors import SurgeryError
from lmms_topoprune.surgery import (
    decoder_layers,
    delete_layers,
    fingerprint,
    layers_path,
    text_config,
    undeletable,
)

TOKENS = {"input_ids": torch.tensor([[1, 5, 9, 3, 7, 11]])}


@pytest.fixture
def llava() -> hf.PreTrainedModel:
    return holds.build(FAMILIES["llava_qwen2"], "sdpa")


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("llama", "model.layers"),
        ("llava_qwen2", "model.language_model.layers"),
        ("idefics3", "model.text_model.layers"),
        ("instructblip", "language_model.model.decoder.layers"),
        ("instructblip_t5", "language_model.decoder.block"),
        ("florence2", "model.language_model.decoder.layers"),
    ],
)
def test_the_decoder_is_found_by_structure(name: str, path: str) -> None:
    model = holds.build(FAMILIES[name], "eager")
    assert layers_path(model) == path
    assert decoder_layers(model) is model.get_submodule(path)
    assert text_config(model) in [model.config, *vars(model.config).values()]


def test_weights_are_neither_copied_nor_moved(llava: hf.PreTrainedModel) -> None:
    before = {id(parameter) for parameter in decoder_layers(llava).parameters()}
    with delete_layers(llava, [1, 2]):
        assert {id(parameter) for parameter in decoder_layers(llava).parameters()} < before
    assert {id(parameter) for parameter in decoder_layers(llava).parameters()} == before


def test_every_number_and_every_field_is_in_step(llava: hf.PreTrainedModel) -> None:
    delete_layers(llava, [0, 3])
    config = text_config(llava)
    assert [layer.self_attn.layer_idx for layer in decoder_layers(llava)] == [0, 1, 2, 3]
    assert config.num_hidden_layers == 4
    assert config.layer_types == ["full_attention"] * 2 + ["sliding_attention"] * 2
    assert config.max_window_layers == 2
    assert config is llava.config.text_config


def test_deletions_nest_and_restore_in_reverse(llava: hf.PreTrainedModel) -> None:
    dense = holds.logits(llava, TOKENS)
    first = delete_layers(llava, [0])
    second = delete_layers(llava, [1, 2])
    with pytest.raises(SurgeryError, match="restore the later deletion first"):
        first.restore()
    second.restore()
    first.restore()
    first.restore()
    assert torch.equal(holds.logits(llava, TOKENS), dense)
    assert llava.config.text_config.num_hidden_layers == 6


def test_a_restore_follows_an_error_in_the_block(llava: hf.PreTrainedModel) -> None:
    with pytest.raises(KeyError), delete_layers(llava, [4]):
        raise KeyError
    assert len(decoder_layers(llava)) == 6


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([6], "layer 6 does not exist"),
        ([-1], "layer -1 does not exist"),
        (range(6), "all 6 layers"),
        ("3-5", "layers is '3-5'; allowed: whole numbers from 0 to 5"),
        ([1.5], r"layers is \[1\.5\]; allowed: whole numbers"),
        (3, "layers is 3; allowed: whole numbers"),
    ],
)
def test_impossible_layers_are_refused(llava: hf.PreTrainedModel, layers: list[int], message: str) -> None:
    with pytest.raises(SurgeryError, match=message):
        delete_layers(llava, layers)
    assert len(decoder_layers(llava)) == 6


def test_deleting_nothing_changes_nothing(llava: hf.PreTrainedModel) -> None:
    before = fingerprint(llava)
    assert delete_layers(llava, []).kept == tuple(range(6))
    assert fingerprint(llava) == before


def test_a_model_that_disagrees_with_its_configuration_is_refused() -> None:
    model = holds.build(FAMILIES["llama"], "eager")
    del model.model.layers[2]
    with pytest.raises(SurgeryError, match=r"model\.layers has 5"):
        delete_layers(model, [0])


def test_layers_numbered_otherwise_than_configured_are_refused() -> None:
    model = holds.build(FAMILIES["llama"], "eager")
    model.model.layers[3].self_attn.layer_idx = 2
    with pytest.raises(SurgeryError, match="layer_idx is 2, its configuration builds 3"):
        delete_layers(model, [0])


def test_wrapped_layers_and_other_objects_are_refused() -> None:
    model = holds.build(FAMILIES["llama"], "eager")
    model.model.layers[1] = nn.Sequential(model.model.layers[1])
    with pytest.raises(SurgeryError, match="layer 1 is a Sequential"):
        undeletable(model)
    with pytest.raises(SurgeryError, match="model is a Linear"):
        decoder_layers(nn.Linear(2, 2))


def test_a_depth_that_enters_the_weights_of_a_layer_is_refused() -> None:
    """DiffLlama's attention depends on the depth: no configuration keeps a moved layer what it was."""
    model = holds.build(holds.Family("DiffLlamaForCausalLM", lambda: text("DiffLlamaConfig")), "eager")
    assert set(undeletable(model)) == {0, 1, 2, 3, 4}
    with pytest.raises(SurgeryError, match="layer 0 of DiffLlamaForCausalLM cannot be deleted: layer 1"):
        delete_layers(model, [0])


def test_donors_go_with_their_readers_only() -> None:
    model = holds.build(FAMILIES["gemma3n"], "eager")
    with pytest.raises(SurgeryError, match="layer 2 of"):
        delete_layers(model, [2])
    with delete_layers(model, [2, 3, 4, 5]):
        assert text_config(model).num_kv_shared_layers == 0


def test_at_least_one_attention_layer_stays() -> None:
    model = holds.build(FAMILIES["lfm2_vl"], "eager")
    with pytest.raises(SurgeryError, match=r"layers 1\+4 together of .* no attention layer would be left"):
        delete_layers(model, [1, 4])


def test_a_model_without_weights_is_pruned_too() -> None:
    with torch.device("meta"):
        model = hf.LlamaForCausalLM(text("LlamaConfig"))
    delete_layers(model, [0])
    assert len(model.model.layers) == model.config.num_hidden_layers == 5


def test_the_device_map_follows() -> None:
    model = holds.build(FAMILIES["llama"], "eager")
    layers = {f"model.layers.{number}": number for number in range(5)}
    parts = {"model.layers.5.self_attn": 6, "model.layers.5.mlp": 7}
    model.hf_device_map = {"model.embed_tokens": 0, **layers, **parts}
    with delete_layers(model, [0, 4]):
        moved = {f"model.layers.{number}": number + 1 for number in range(3)}
        parts = {"model.layers.3.self_attn": 6, "model.layers.3.mlp": 7}
        assert model.hf_device_map == {"model.embed_tokens": 0, **moved, **parts}
    assert len(model.hf_device_map) == 8


def test_the_fingerprint_names_weights_and_configuration(llava: hf.PreTrainedModel) -> None:
    dense = fingerprint(llava)
    seen = {dense}
    for layer in decoder_layers(llava):
        with torch.no_grad():
            layer.mlp.up_proj.weight.add_(1e-3)
        seen.add(fingerprint(llava))
    with delete_layers(llava, [2]):
        seen.add(fingerprint(llava))
    llava.config.text_config.rms_norm_eps = 1e-3
    seen.add(fingerprint(llava))
    assert len(seen) == 9


def test_the_fingerprint_does_not_depend_on_where_the_model_was_loaded(
    llava: hf.PreTrainedModel, tmp_path
) -> None:
    dense = fingerprint(llava)
    with delete_layers(llava, [1]):
        pass
    llava.save_pretrained(tmp_path)
    assert fingerprint(llava) == dense
    assert fingerprint(type(llava).from_pretrained(tmp_path, attn_implementation="eager")) == dense
