"""Quantization settings name the same modules after the deletion as before it, or the export is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from families.properties import build
from families.table import FAMILIES
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)
from transformers.quantizers.base import HfQuantizer

from lmms_topoprune.errors import InputError
from lmms_topoprune.plan import PruningPlan
from lmms_topoprune.surgery import delete_layers, export
from lmms_topoprune.surgery.export_folder import renumber_quantization
from lmms_topoprune.surgery.export_weights import copy_weights

KEPT = (0, 3, 5)  # of six
PATH = "model.language_model.layers"
PARTS = ("self_attn.q_proj", "mlp.gate_proj", "mlp.up_proj")
GROUPS = {"group_0": {"targets": ["Linear", r"re:.*q_proj"], "weights": {"num_bits": 4}}}
PLAIN = {"quant_method": "gptq", "version": "0.48.2", "scheme": "w4a16", "targets": [r"re:.*\d+\..*"]}
V4 = "language_model.model.layers"  # the list's name in files of transformers 4
MODULES = [
    "lm_head",
    "model.vision_tower.encoder.layers.0.mlp.fc1",
    "model.vision_tower.encoder.layers.3.mlp.fc1",
    *(
        f"{PATH}.{layer}.{part}"
        for layer in range(3)
        for part in ("self_attn.q_proj", "mlp.gate_proj", "mlp.up_proj")
    ),
]


def renumbered(settings: dict[str, Any]) -> dict[str, Any]:
    return renumber_quantization(settings, PATH, KEPT, MODULES)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (  # bitsandbytes
            {
                "load_in_4bit": True,
                "llm_int8_skip_modules": ["lm_head", "language_model.model.layers.5.mlp", f"{PATH}.1"],
            },
            {"load_in_4bit": True, "llm_int8_skip_modules": ["lm_head", "language_model.model.layers.2.mlp"]},
        ),
        (  # FP8, AWQ and others: the vision tower's layers keep their numbers
            {"modules_to_not_convert": ["model.vision_tower.encoder.layers.3", f"{PATH}.3.mlp.gate_proj"]},
            {"modules_to_not_convert": ["model.vision_tower.encoder.layers.3", f"{PATH}.1.mlp.gate_proj"]},
        ),
        (  # compressed-tensors
            {
                "ignore": ["re:.*lm_head", r"re:.*language_model\.layers\.5\..*", f"{PATH}.4.mlp.up_proj"],
                "config_groups": {
                    "group_0": {"targets": ["Linear", r"re:.*q_proj"], "weights": {"num_bits": 4}}
                },
            },
            {
                "ignore": ["re:.*lm_head", r"re:.*language_model\.layers\.2\..*"],
                "config_groups": {
                    "group_0": {"targets": ["Linear", r"re:.*q_proj"], "weights": {"num_bits": 4}}
                },
            },
        ),
        (  # GPTQ
            {
                "dynamic": {
                    r"+:model\.language_model\.layers\.3\.mlp.*": {"bits": 8},
                    r"-:.*\.layers\.2\..*": {},
                }
            },
            {"dynamic": {r"+:model\.language_model\.layers\.1\.mlp.*": {"bits": 8}}},
        ),
        (  # names of another engine's fused modules, and settings keyed by layer
            {
                "ignore": ["model.layers.3.mlp.gate_up_proj"],
                "shapes": {f"{PATH}.5.mlp.up_proj": 7, f"{PATH}.2.x": 8},
            },
            {"ignore": ["model.layers.1.mlp.gate_up_proj"], "shapes": {f"{PATH}.2.mlp.up_proj": 7}},
        ),
        (  # nothing about layers
            {
                "quant_method": "gptq",
                "bits": 4,
                "version": "0.48.2",
                "scheme": "w4a16",
                "targets": [r"re:.*\d+\..*"],
            },
            {
                "quant_method": "gptq",
                "bits": 4,
                "version": "0.48.2",
                "scheme": "w4a16",
                "targets": [r"re:.*\d+\..*"],
            },
        ),
    ],
    ids=["bitsandbytes", "fp8", "compressed-tensors", "gptq", "fused", "plain"],
)
def test_names_and_patterns_are_renumbered(settings: dict[str, Any], expected: dict[str, Any]) -> None:
    before = json.dumps(settings)
    assert renumbered(settings) == expected
    assert json.dumps(settings) == before


@pytest.mark.parametrize(
    "pattern", [r"re:.*language_model\.layers\.(0|1|5)\..*", r"re:.*layers\.[3-5]\.mlp.*", "layers.3"]
)
def test_what_cannot_be_renumbered_is_refused(pattern: str) -> None:
    with pytest.raises(
        InputError, match="cannot be renumbered for the layers that stay; name them one by one"
    ):
        renumbered({"ignore": [pattern]})


def test_a_pattern_that_holds_for_the_new_numbers_too_stays() -> None:
    pattern = r"re:.*language_model\.layers\.\d+\.mlp\..*"
    assert renumbered({"ignore": [pattern]}) == {"ignore": [pattern]}


@pytest.fixture
def quantized(tmp_path: Path) -> tuple[PreTrainedModel, Path]:
    """A model as if quantized: packed weights in its files, and one more layer behind the last."""
    model = build(FAMILIES["llava_llama"], "sdpa")
    folder = tmp_path / "dense"
    model.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    layers = [name for name in weights if name.startswith("language_model.model.layers.")]
    for name in layers:
        weights[name] = torch.randint(0, 255, (3,), dtype=torch.uint8)
        weights[name + ".scale"] = torch.rand(1)
    weights["language_model.model.layers.6.eh_proj.weight"] = torch.ones(2)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "made_up",
        "modules_to_not_convert": ["language_model.model.layers.5.mlp.up_proj", "lm_head"],
    }
    (folder / "config.json").write_text(json.dumps(config))
    return model, folder


def test_quantized_weights_are_taken_from_the_files(
    quantized: tuple[PreTrainedModel, Path], tmp_path: Path
) -> None:
    """What is in memory, and what a forward pass made of it, does not matter."""
    model, dense = quantized
    plan = PruningPlan(str(dense), "0" * 16, 6, (1, 2, 4), "given")
    delete_layers(model, plan.dropped)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    folder = export(model, None, plan, tmp_path / "pruned")
    before, after = load_file(dense / "model.safetensors"), load_file(folder / "model.safetensors")
    start = "language_model.model.layers."
    old = {0: 0, 1: 3, 2: 5, 3: 6}  # the layer behind the decoder's goes along
    for name, tensor in after.items():
        number, _, rest = name.removeprefix(start).partition(".")
        source = f"{start}{old[int(number)]}.{rest}" if name.startswith(start) else name
        assert torch.equal(tensor, before[source]), name
    assert len(after) == sum(f"{start}{gone}." not in name for name in before for gone in (1,)) - sum(
        f"{start}{gone}." in name for name in before for gone in (2, 4)
    )
    settings = json.loads((folder / "config.json").read_text())["quantization_config"]
    assert settings["modules_to_not_convert"] == ["language_model.model.layers.2.mlp.up_proj", "lm_head"]


def test_shards_are_numbered_anew(tmp_path: Path) -> None:
    dense, pruned = tmp_path / "dense", tmp_path / "pruned"
    pruned.mkdir()
    build(FAMILIES["llama"], "sdpa").save_pretrained(dense, max_shard_size="20KB")
    copy_weights(dense, pruned, "model.layers", (0, 5), 6)
    index = json.loads((pruned / "model.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))
    assert files == sorted(path.name for path in pruned.glob("*.safetensors"))
    assert files[-1].endswith(f"-of-{len(files):05}.safetensors")
    for file in files:
        with safe_open(pruned / file, framework="pt") as stored:
            assert {name for name, place in index["weight_map"].items() if place == file} == set(
                stored.keys()
            )


class Quantizer(HfQuantizer):
    """What transformers keeps on a quantized model."""

    requires_calibration = False

    def __init__(self, serializable: bool) -> None:
        self.quantization_config = type("Config", (), {"quant_method": "made_up"})()
        self.serializable = serializable

    def is_serializable(self) -> bool:
        return self.serializable

    def is_trainable(self) -> bool:
        return False

    def get_state_dict_and_metadata(self, model: PreTrainedModel) -> Any:
        raise NotImplementedError("no kernel\nfor this device")


@pytest.mark.parametrize(
    ("serializable", "reason"), [(False, "no way to write"), (True, "no kernel for this device")]
)
def test_a_quantized_model_that_cannot_be_saved_is_one_sentence(
    serializable: bool, reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = build(FAMILIES["llama"], "sdpa")
    delete_layers(model, [1])
    model.hf_quantizer = Quantizer(serializable)
    plan = PruningPlan("dense", "0" * 16, 6, (1,), "given")
    with pytest.raises(
        InputError, match=f"quantized by made_up, which transformers cannot save: .*{reason}"
    ) as error:
        export(model, None, plan, tmp_path / "pruned")
    assert "\n" not in str(error.value) and not caplog.records and not list(tmp_path.iterdir())


def test_weights_that_a_forward_pass_repacked_are_not_saved(tmp_path: Path) -> None:
    """bitsandbytes changes 4-bit weights in place for the CPU's kernel."""
    model = build(FAMILIES["llama"], "sdpa")
    delete_layers(model, [1])
    model.hf_quantizer = Quantizer(True)
    state = type("State", (), {"packing_format_for_cpu": True})()
    model.model.layers[0].mlp.up_proj.weight.quant_state = state
    plan = PruningPlan("dense", "0" * 16, 6, (1,), "given")
    with pytest.raises(InputError, match=r"on the CPU has repacked model\.layers\.0\.mlp\.up_proj"):
        export(model, None, plan, tmp_path / "pruned")


@pytest.mark.slow
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("stored", [False, True], ids=["quantized as it loads", "stored"])
def test_what_bitsandbytes_really_quantized_is_the_same_model_again(
    bits: int, stored: bool, tmp_path: Path
) -> None:
    """On a CPU, after a forward pass, with a module of a deleted and of a renumbered layer left alone."""
    pytest.importorskip("bitsandbytes")
    torch.manual_seed(0)
    small = {"hidden_size": 64, "intermediate_size": 128, "vocab_size": 64, "num_hidden_layers": 6}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    LlamaForCausalLM(LlamaConfig(**small, **heads)).save_pretrained(tmp_path / "dense")
    left = ["lm_head", "model.layers.1.mlp.up_proj", "model.layers.3.mlp.up_proj"]
    settings = BitsAndBytesConfig(**{f"load_in_{bits}bit": True}, llm_int8_skip_modules=left)
    given = {"device_map": "cpu", "quantization_config": settings}
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "dense", **given)
    if stored:
        model.save_pretrained(tmp_path / "stored")
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "stored", device_map="cpu")
    ids = torch.arange(3, 12)[None]
    model(ids)
    source = str(tmp_path / ("stored" if stored else "dense"))
    delete_layers(model, [1, 2])
    folder = export(model, None, PruningPlan(source, "0" * 16, 6, (1, 2), "given"), tmp_path / "pruned")
    again = AutoModelForCausalLM.from_pretrained(folder, device_map="cpu")
    assert again.config.quantization_config.llm_int8_skip_modules == [left[0], "model.layers.1.mlp.up_proj"]
    with torch.no_grad():
        assert len(again.model.layers) == 4 and torch.equal(again(ids).logits, model(ids).logits)
