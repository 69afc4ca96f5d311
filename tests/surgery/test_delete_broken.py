"""The properties catch broken deletions: each mistake that others have made fails the check meant for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from families import properties as holds
from families.inputs import prompts
from families.table import FAMILIES
from transformers import PreTrainedModel

from lmms_topoprune.surgery import Deletion, decoder_layers, delete_layers, identity_layers, text_config

# Each check first passes on the right deletion, so any error afterwards is the mistake that was made.
BROKEN = (Exception,)


def pruned(name: str, layers: tuple[int, ...]) -> tuple[PreTrainedModel, Deletion, dict[str, Any]]:
    """A pruned model of a family, its deletion, and the dense fields of its decoder's configuration."""
    model = holds.build(FAMILIES[name], "eager")
    fields = dict(vars(text_config(model)))
    return model, delete_layers(model, layers), fields


def forget_renumbering(model: PreTrainedModel, kept: tuple[int, ...]) -> None:
    for old, layer in zip(kept, decoder_layers(model), strict=True):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = old


@pytest.mark.parametrize("name", ["llama", "llava_qwen2", "qwen3_5", "gemma3", "llama4"])
def test_no_renumbering_breaks_the_cache(name: str) -> None:
    model, deletion, _ = pruned(name, (0, 1))
    holds.cache_agrees(model, FAMILIES[name].inputs)
    forget_renumbering(model, deletion.kept)
    with pytest.raises(BROKEN):
        holds.cache_agrees(model, FAMILIES[name].inputs)


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("llama", "num_hidden_layers"),
        ("gemma3", "layer_types"),
        ("llama4", "no_rope_layers"),
        ("llama4", "moe_layers"),
        ("mllama", "cross_attention_layers"),
        ("qwen3_vl_moe", "mlp_only_layers"),
        ("glm4v_moe", "first_k_dense_replace"),
        ("gemma3n", "intermediate_size"),
        ("gemma3n", "activation_sparsity_pattern"),
        ("molmo2", "rope_scaling_layers"),
    ],
)
def test_a_field_left_as_it_was_breaks_the_reload(name: str, field: str, tmp_path: Path) -> None:
    layers = FAMILIES[name].sets[-1] if name != "glm4v_moe" else (0,)
    model, _, fields = pruned(name, layers)
    holds.reload_agrees(model, FAMILIES[name].inputs, tmp_path / "right")
    vars(text_config(model))[field] = fields[field]
    with pytest.raises(BROKEN):
        holds.reload_agrees(model, FAMILIES[name].inputs, tmp_path / "wrong")


def test_a_copy_of_a_list_on_a_module_left_as_it_was_breaks_the_logits() -> None:
    """Without an image Mllama skips the layers that its decoder's own list names."""
    model = holds.build(FAMILIES["mllama"], "eager")
    singles, _ = prompts(model, "text")
    with identity_layers(model, [0, 1]):
        references = [holds.logits(model, inputs) for inputs in singles]
    delete_layers(model, [0, 1])
    holds.equals_identity(model, references, "text")
    model.model.language_model.cross_attention_layers = [1, 4]
    with pytest.raises(BROKEN):
        holds.equals_identity(model, references, "text")


@pytest.mark.parametrize("name", ["llama", "qwen2_vl", "gemma4", "chameleon", "instructblip_t5"])
def test_the_wrong_layer_breaks_the_logits(name: str) -> None:
    family = FAMILIES[name]
    model = holds.build(family, "eager")
    right, wrong = ((1,), (4,)) if name == "instructblip_t5" else ((0,), (1,))
    singles, _ = prompts(model, family.inputs)
    with identity_layers(model, right):
        references = [holds.logits(model, inputs) for inputs in singles]
    with delete_layers(model, wrong), pytest.raises(AssertionError, match="identity"):
        holds.equals_identity(model, references, family.inputs)


@pytest.mark.parametrize("name", ["llama", "llava_qwen2", "gemma3"])
def test_a_layer_that_forgets_the_padding_breaks_the_batch(name: str) -> None:
    model, _, _ = pruned(name, (0, 1))
    holds.batch_agrees(model, FAMILIES[name].inputs)

    def forget(module: torch.nn.Module, args: Any, given: dict[str, Any]) -> Any:
        mask = given["attention_mask"]
        return args, {
            **given,
            "attention_mask": mask[:, :, :, -1:].expand_as(mask) if mask.ndim == 4 else None,
        }

    decoder_layers(model)[-1].register_forward_pre_hook(forget, with_kwargs=True)
    with pytest.raises(AssertionError, match="batch"):
        holds.batch_agrees(model, FAMILIES[name].inputs)


@pytest.mark.parametrize("name", ["llama", "gemma3n", "mllama"])
def test_a_restore_that_forgets_a_change_is_seen(name: str) -> None:
    """Each change that a restore takes back is needed: without one the model is not the dense one again."""
    family = FAMILIES[name]
    model = holds.build(family, "eager")
    fields = dict(vars(text_config(model)))
    deletion = delete_layers(model, family.sets[-1])
    forgotten = deletion._undo.pop(0)
    deletion.restore()
    layers = [module.layer_idx for module in decoder_layers(model).modules() if hasattr(module, "layer_idx")]
    in_step = vars(text_config(model)) == fields and layers == sorted(layers)
    assert not in_step
    forgotten()
    assert vars(text_config(model)) == fields


def test_deleting_nothing_is_seen() -> None:
    model = holds.build(FAMILIES["llama"], "eager")
    dense = [holds.logits(model, inputs) for inputs in prompts(model, "text")[0]]
    with pytest.raises(AssertionError, match="change nothing"):
        holds.differs(dense, dense)


def test_an_image_that_is_overlooked_is_seen() -> None:
    model = holds.build(FAMILIES["llava_llama"], "eager")
    inputs = prompts(model, "llava")[0][0]
    holds.sees(model, inputs, holds.logits(model, inputs))
    model.model.multi_modal_projector.linear_2.weight.data.zero_()
    with pytest.raises(AssertionError, match="image changes nothing"):
        holds.sees(model, inputs, holds.logits(model, inputs))


def test_unsliced_per_layer_embeddings_break_the_logits() -> None:
    family = FAMILIES["gemma3n"]
    model = holds.build(family, "eager")
    singles, _ = prompts(model, family.inputs)
    with identity_layers(model, [0]):
        references = [holds.logits(model, inputs) for inputs in singles]
    dense = model.model.embed_tokens_per_layer.weight
    delete_layers(model, [0])
    holds.equals_identity(model, references, family.inputs)
    model.model.embed_tokens_per_layer.weight = torch.nn.Parameter(dense[:, : -dense.shape[1] // 6].clone())
    with pytest.raises(AssertionError, match="identity"):
        holds.equals_identity(model, references, family.inputs)
