"""What is said of a checkpoint before its weights are read holds for the loaded model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from families.properties import build
from families.table import FAMILIES
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from lmms_topoprune.surgery import fingerprint
from lmms_topoprune.surgery.checkpoint import Checkpoint

FAMILY_NAMES = (
    "llava_llama",
    "qwen2_vl",
    "qwen2_5_vl",
    "qwen3_vl",
    "gemma3",
    "idefics2",
    "mllama",
    "internvl",
)


@pytest.mark.parametrize("name", [name for name in FAMILY_NAMES if name in FAMILIES])
def test_the_fingerprint_is_that_of_the_loaded_model(name: str, tmp_path: Path) -> None:
    model = build(FAMILIES[name], "sdpa")
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    kind = type(model)
    for options in ({}, {"dtype": torch.float32}, {"dtype": torch.float16}):
        loaded = kind.from_pretrained(tmp_path, **options)
        assert Checkpoint(str(tmp_path), kind, options).fingerprint == fingerprint(loaded)


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "vocab_size": 64}
    LlamaForCausalLM(LlamaConfig(num_hidden_layers=4, **sizes)).save_pretrained(tmp_path / "llama")
    return tmp_path / "llama"


def test_a_tuned_copy_of_the_same_shapes_has_another_fingerprint(llama: Path) -> None:
    before = Checkpoint(str(llama), LlamaForCausalLM).fingerprint
    (file,) = llama.glob("*.safetensors")
    weights = load_file(file)
    weights["model.layers.2.mlp.up_proj.weight"] *= 1.001
    save_file(weights, file, metadata={"format": "pt"})
    assert Checkpoint(str(llama), LlamaForCausalLM).fingerprint != before


def test_files_of_several_types_are_left_to_loading(llama: Path) -> None:
    (file,) = llama.glob("*.safetensors")
    weights = load_file(file)
    weights["model.norm.weight"] = weights["model.norm.weight"].half()
    save_file(weights, file, metadata={"format": "pt"})
    assert Checkpoint(str(llama), LlamaForCausalLM).fingerprint is None


@pytest.mark.parametrize("where", ["cpu", "disk"])
def test_offloaded_weights_are_looked_at_where_they_are(llama: Path, where: str, tmp_path: Path) -> None:
    from accelerate import cpu_offload, disk_offload

    model = LlamaForCausalLM.from_pretrained(llama)
    expected = fingerprint(model)
    if where == "cpu":
        cpu_offload(model, execution_device="cpu")
    else:
        disk_offload(model, tmp_path / "offload", execution_device="cpu")
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert fingerprint(model) == expected
    other = LlamaForCausalLM(LlamaConfig(**{**model.config.to_dict(), "dtype": "float32"}))
    assert fingerprint(other) != expected
