"""Partial loading gives what delete_layers makes of the dense model, without weights of dropped layers."""

from __future__ import annotations

import copy
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from families.properties import build, logits
from families.table import FAMILIES
from families.tiny import LAYERS
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    core_model_loading,
)

from lmms_topoprune.errors import InputError, SurgeryError
from lmms_topoprune.plan import PruningPlan
from lmms_topoprune.surgery import decoder_layers, delete_layers, fingerprint, load, load_pruned, self_test
from lmms_topoprune.surgery.delete import PreparedDeletion
from lmms_topoprune.surgery.load import PartialDeviceMap

IDS = {"input_ids": torch.arange(3, 12)[None]}


def plan_for(model: PreTrainedModel, *dropped: int) -> PruningPlan:
    return PruningPlan("dense", fingerprint(model), len(decoder_layers(model)), dropped, "given")


def small(layers: int, vocabulary: int, width: int, **more: Any) -> LlamaConfig:
    return LlamaConfig(
        num_hidden_layers=layers,
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=4 * width,
        num_attention_heads=4,
        **more,
    )


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> tuple[LlamaForCausalLM, Path]:
    """12 layers, so that "layers.1" is the beginning of another name; tied embeddings; many shards."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(small(12, 128, 32, tie_word_embeddings=True)).eval()
    folder = tmp_path_factory.mktemp("llama")
    model.save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 5
    return model, folder


@pytest.mark.parametrize("shards", ["20KB", "1GB"])
@pytest.mark.parametrize("name", ["llava_llama", "qwen2_vl", "qwen3_vl_moe", "gemma3n", "mllama", "gpt_neox"])
def test_equals_delete_layers(name: str, shards: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    dense = build(family, "sdpa")
    dense.save_pretrained(tmp_path, max_shard_size=shards)
    plan = plan_for(dense, *family.sets[-1])
    model, report = load_pruned(tmp_path, plan, output_loading_info=True)
    dense = type(dense).from_pretrained(tmp_path)
    delete_layers(dense, plan.dropped)
    assert not {key: keys for key, keys in report.items() if keys}
    assert type(model) is type(dense)
    assert model.config.to_dict() == dense.config.to_dict()
    assert torch.equal(logits(model, IDS), logits(dense, IDS))
    self_test(model)


def layers_on(device: str, *layers: int) -> dict[str, str]:
    return {f"model.layers.{layer}": device if layer in layers else "cpu" for layer in range(12)}


OUTSIDE = dict.fromkeys(("model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head"), "cpu")


@pytest.mark.parametrize(
    "device_map",
    [
        None,
        "cpu",
        "auto",
        "sequential",
        torch.device("cpu"),
        {"": "cpu"},
        {"model": "cpu", "lm_head": "cpu"},
        {**OUTSIDE, **layers_on("disk", 1, 5, 11)},
    ],
    ids=str,
)
def test_goes_where_the_device_map_says(
    device_map: Any, llama: tuple[LlamaForCausalLM, Path], tmp_path: Path
) -> None:
    dense, folder = llama
    plan = plan_for(dense, 1, 3, 9)
    model = load_pruned(folder, plan, device_map=device_map, offload_folder=tmp_path)
    with delete_layers(dense, plan.dropped):
        assert torch.equal(logits(model, IDS), logits(dense, IDS))
    offloaded = isinstance(device_map, dict) and "disk" in device_map.values()
    if offloaded:
        moved = {name for name, device in model.hf_device_map.items() if device == "disk"}
        assert moved == {"model.layers.3", "model.layers.8"}  # 5 and 11 before the deletion
    else:
        assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
        assert not any(hasattr(module, "_hf_hook") for module in model.modules())
    assert model.lm_head.weight is model.model.embed_tokens.weight or offloaded


def test_a_device_map_with_a_gap_is_refused(llama: tuple[LlamaForCausalLM, Path]) -> None:
    with pytest.raises(InputError, match=r"no device for model\.layers\.0"):
        load_pruned(llama[1], plan_for(llama[0], 1), device_map=OUTSIDE)


@pytest.mark.parametrize("dtype", [torch.bfloat16, "float16"])
def test_converts_the_type(dtype: Any, llama: tuple[LlamaForCausalLM, Path]) -> None:
    plan = plan_for(llama[0], 1, 3, 9)
    model = load_pruned(llama[1], plan, dtype=dtype, model_class=AutoModelForCausalLM)
    dense = AutoModelForCausalLM.from_pretrained(llama[1], dtype=dtype)
    delete_layers(dense, plan.dropped)
    assert str(model.dtype).endswith(str(dtype).removeprefix("torch."))
    assert torch.equal(logits(model, IDS), logits(dense, IDS))


def test_dropped_layers_have_no_storage(
    llama: tuple[LlamaForCausalLM, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    devices: list[list[str]] = []

    carry_out = PreparedDeletion.apply_to

    def spy(deletion: PreparedDeletion, model: PreTrainedModel) -> Any:
        devices.append([layer.mlp.up_proj.weight.device.type for layer in decoder_layers(model)])
        return carry_out(deletion, model)

    monkeypatch.setattr(PreparedDeletion, "apply_to", spy)
    load_pruned(llama[1], plan_for(llama[0], 1, 3, 9))
    assert devices[-1] == ["meta" if layer in (1, 3, 9) else "cpu" for layer in range(12)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropped_layers_are_not_even_looked_up_in_the_files(
    dtype: torch.dtype, llama: tuple[LlamaForCausalLM, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []
    take_out = core_model_loading._materialize_copy

    def spy(tensor: Any, device: Any = None, dtype: Any = None) -> torch.Tensor:
        taken.append(str(device))
        return take_out(tensor, device, dtype)

    monkeypatch.setattr(core_model_loading, "_materialize_copy", spy)
    tensors = len(list(llama[0].model.layers[0].parameters()))
    load_pruned(llama[1], plan_for(llama[0], 1, 3, 9), dtype=dtype)
    assert taken == ["cpu"] * (9 * tensors + 2)
    assert core_model_loading._materialize_copy is spy
    monkeypatch.setattr(load, "meta_tensors_unread", nullcontext)
    load_pruned(llama[1], plan_for(llama[0], 1, 3, 9), dtype=dtype)
    assert taken.count("meta") == 3 * tensors


def test_a_changed_configuration_is_followed(llama: tuple[LlamaForCausalLM, Path]) -> None:
    """Arguments of from_pretrained may change fields, which no twin of the files' configuration has."""
    model = load_pruned(llama[1], plan_for(llama[0], 1), rms_norm_eps=0.5, use_cache=False)
    assert model.model.layers[0].input_layernorm.variance_epsilon == 0.5
    assert len(model.model.layers) == model.config.num_hidden_layers == 11
    self_test(model)


LOAD = """
import sys
from pathlib import Path

import torch
from transformers import LlamaForCausalLM

from lmms_topoprune.plan import PruningPlan
from lmms_topoprune.surgery import load_pruned

def load(folder):
    if sys.argv[1] == "dense":
        return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return load_pruned(folder, PruningPlan.load(folder + "/plan.json"), dtype=torch.float32)

def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

load(sys.argv[2])  # what is imported on the way is not the weights' memory
before = resident_bytes()
model = load(sys.argv[3])
print(resident_bytes() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_follows_the_kept_layers(tmp_path: Path) -> None:
    """Each load in a process of its own: a heap with room from earlier tests would hide what is taken."""
    for name, width in (("tiny", 16), ("large", 512)):  # the latter of 68 MB
        dense = LlamaForCausalLM(small(8, 64, width)).to(torch.bfloat16)
        dense.save_pretrained(tmp_path / name)
        plan_for(dense, *range(1, 7)).save(tmp_path / name / "plan.json")

    def growth(kind: str) -> int:
        command = [sys.executable, "-c", LOAD, kind, str(tmp_path / "tiny"), str(tmp_path / "large")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return int(done.stdout.splitlines()[-1])

    whole, lean = growth("dense"), growth("lean")
    assert whole > 100e6 and 0.2 < lean / whole < 0.35  # 2 of 8 layers, and noise


def test_a_kept_layer_that_was_not_loaded_is_noticed(
    llama: tuple[LlamaForCausalLM, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The map that lacks an entry for each layer, which transformers takes to speak for layer 10 as well."""
    naive = PartialDeviceMap({"": "cpu", "model.layers.1": "meta"})
    monkeypatch.setattr(load, "partial_device_map", lambda *given: naive)
    with pytest.raises(SurgeryError, match=r"model\.layers\.9\..* was not loaded"):
        load_pruned(llama[1], plan_for(llama[0], 1))


def test_another_model_is_refused(llama: tuple[LlamaForCausalLM, Path]) -> None:
    folder = llama[1]
    with pytest.raises(InputError, match=r"the plan is for 6 layers, .* has 12"):
        load_pruned(folder, PruningPlan("dense", "", LAYERS, (1,), "given"))
    other = PruningPlan("dense", "0" * 16, 12, (1,), "given")
    with pytest.raises(InputError, match="has in no type; leave verify out"):
        load_pruned(folder, other, verify=True)
    load_pruned(folder, other)
    load_pruned(folder, plan_for(llama[0], 1), verify=True)


def test_what_cannot_be_verified_is_refused(llama: tuple[LlamaForCausalLM, Path], tmp_path: Path) -> None:
    mixed = copy.deepcopy(llama[0])
    mixed.model.norm.to(torch.bfloat16)
    mixed.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="of several types, so verify cannot tell its fingerprint"):
        load_pruned(tmp_path, plan_for(mixed, 1), verify=True)


@pytest.mark.parametrize("made", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("loaded", [torch.bfloat16, torch.float16, "auto"])
def test_a_plan_is_recognized_in_whatever_type_it_was_made(
    made: torch.dtype, loaded: Any, llama: tuple[LlamaForCausalLM, Path], tmp_path: Path
) -> None:
    copy.deepcopy(llama[0]).to(torch.bfloat16).save_pretrained(tmp_path)
    plan = plan_for(LlamaForCausalLM.from_pretrained(tmp_path, dtype=made), 1)
    load_pruned(tmp_path, plan, verify=True, dtype=loaded)


def test_refuses_before_reading_weights(tmp_path: Path) -> None:
    dense = build(FAMILIES["qwen3_vl"], "sdpa")
    dense.config.save_pretrained(tmp_path)
    with pytest.raises(SurgeryError, match=r"layer 0 .* DeepStack"):
        load_pruned(tmp_path, plan_for(dense, 0, 4))


def test_names_the_model_by_its_configuration(llama: tuple[LlamaForCausalLM, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(llama[1], tmp_path / "copy")
    config = LlamaConfig.from_pretrained(folder)
    config.architectures = None
    config.save_pretrained(folder)
    assert isinstance(load_pruned(folder, plan_for(llama[0], 1)), LlamaForCausalLM)
