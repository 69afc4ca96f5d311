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
    delete,
    delete_layers,
    fingerprint,
    identity_layers,
    layers_path,
    meta_model,
    refusal,
    text_config,
    undeletable,
)
from lmms_topoprune.surgery.dense_model import prune_config
from lmms_topoprune.surgery.special_layers import check_cache, must_stay

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


def test_the_types_of_layers_may_be_called_block_types() -> None:
    with pytest.raises(SurgeryError, match="no attention layer would be left"):
        check_cache({"layers_block_type": ["linear_attention", "moe", "full_attention"]}, (0, 1))


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


SHARED = ["full", "full", "shared", "full", "shared", "full"]
SPARSE = {
    **dict.fromkeys(("kv_lora_rank", "q_lora_rank", "qk_rope_head_dim", "v_head_dim", "qk_nope_head_dim"), 8),
    **{"index_topk": 2, "index_head_dim": 16, "index_n_heads": 2, "num_key_value_heads": 4},
    "indexer_types": SHARED,
}


def sparse(attention: str = "eager") -> hf.PreTrainedModel:
    """GLM-5: layers 2 and 4 attend to the tokens that layers 1 and 3 chose."""
    return holds.build(
        holds.Family("GlmMoeDsaForCausalLM", lambda: text("GlmMoeDsaConfig", **SPARSE)), attention
    )


def test_a_layer_whose_choice_of_tokens_others_take_over_goes_with_them_only() -> None:
    model = sparse()
    assert set(undeletable(model)) == {1, 3}
    with pytest.raises(SurgeryError, match=r"layer 3 .* layer 4 takes over which tokens layer 3 attends to"):
        delete_layers(model, [0, 3])
    for layers in ([0], [2], [3, 4], [1, 2, 5]):
        with identity_layers(model, layers):
            reference = holds.logits(model, TOKENS)
        with delete_layers(model, layers):
            assert text_config(model).indexer_types == [SHARED[i] for i in range(6) if i not in layers]
            holds.equal(holds.logits(model, TOKENS), reference, "identity")


def test_without_that_check_another_choice_would_be_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delete, "check_donors", lambda text, kept: None)
    model = sparse()
    with identity_layers(model, [3]):
        reference = holds.logits(model, TOKENS)
    with delete_layers(model, [3]), pytest.raises(AssertionError, match="identity"):
        holds.equal(holds.logits(model, TOKENS), reference, "identity")


def test_the_layers_whose_keys_others_read_are_renumbered() -> None:
    """Mistral Large 4 lists for each layer whose keys and values it reads."""
    fields = {"num_hidden_layers": 6, "kv_source_layers": [0, 1, 2, 3, 3, 5]}
    pruned = prune_config(fields, (), "num_hidden_layers", (0, 2, 3, 4), 6)
    assert pruned["kv_source_layers"] == [0, 1, 2, 2]
    with pytest.raises(SurgeryError, match="layer 4 reads the keys and values of layer 3"):
        prune_config(fields, (), "num_hidden_layers", (0, 4, 5), 6)


def test_a_layer_that_hands_more_than_hidden_states_on_stays() -> None:
    """Zaya's router adds what the router of the layer before computed."""
    model = holds.build(FAMILIES["llama"], "eager")
    layer = type(decoder_layers(model)[0])

    class Handing(layer):
        def forward(self, hidden_states, prev_router_states=None, **given):
            return super().forward(hidden_states, **given)

    for module in decoder_layers(model):
        module.__class__ = Handing
    reasons = must_stay(model, 6)
    assert set(reasons) == set(range(5))
    assert reasons[0] == "the next layer takes prev_router_states over from it"


def test_layers_that_run_in_a_loop_stay() -> None:
    model = holds.build(FAMILIES["llama"], "eager")
    model.config.loop_layer_index_start, model.config.loop_layer_index_end = 2, 4
    with pytest.raises(SurgeryError, match=r"layer 1 .* layers run in a loop"):
        delete_layers(model, [1, 5])
    with delete_layers(model, [5]):
        assert len(decoder_layers(model)) == 5


def test_a_question_that_was_asked_before_builds_nothing(
    llava: hf.PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep asks for every plan; of layers that are alike it does not matter which ones go."""
    asked = [undeletable(llava), refusal(llava, [1, 2]), refusal(llava, [0, 5])]
    monkeypatch.setattr(meta_model, "on_meta_device", lambda: pytest.fail("built again"))
    again = hf.AutoModelForImageTextToText.from_config(llava.config)
    for model in (llava, again):
        assert [undeletable(model), refusal(model, [1, 2]), refusal(model, [0, 5])] == asked
    monkeypatch.undo()
    for layer in range(6):  # other configurations push the oldest out
        with delete_layers(llava, [layer]):
            undeletable(llava)
    assert len(meta_model._built) <= meta_model._REMEMBERED


def test_what_is_done_to_a_pruned_model_does_not_reach_the_next_one(llava: hf.PreTrainedModel) -> None:
    with delete_layers(llava, [1]):
        expected = list(text_config(llava).layer_types)
        text_config(llava).layer_types.append("made up")
    with delete_layers(llava, [1]):
        assert text_config(llava).layer_types == expected
