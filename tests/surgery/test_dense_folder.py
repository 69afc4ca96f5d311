"""An export changes what the deletion touches and nothing else: the folder starts from the dense one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from families.properties import build
from families.table import FAMILIES
from safetensors import safe_open
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    Glm4vMoeForConditionalGeneration,
    LlavaProcessor,
)

from lmms_topoprune.errors import InputError
from lmms_topoprune.plan import PruningPlan
from lmms_topoprune.surgery import delete_layers, export, load_pruned

IDS = {"input_ids": torch.arange(3, 12)[None]}
HELPER = Path(__file__).parents[1] / "helpers" / "transformers4.py"
ADDED = {"plan.json", "mergekit.yaml", "README.md"}
PINS = ("transformers==4.57.6", "tokenizers==0.22.2", "huggingface_hub==0.36.2")


def plan_for(*dropped: int) -> PruningPlan:
    return PruningPlan("dense", "0" * 16, 6, dropped, "given")


def differences(old: Any, new: Any, path: str = "") -> dict[str, tuple[Any, Any]]:
    """Fields in which two JSON values differ, by their dotted names."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return {} if old == new else {path: (old, new)}
    found: dict[str, tuple[Any, Any]] = {}
    for key in {**old, **new}:
        found |= differences(old.get(key, "absent"), new.get(key, "absent"), f"{path}.{key}".lstrip("."))
    return found


def read(folder: Path, name: str = "config.json") -> Any:
    return json.loads((folder / name).read_text())


def tensor_names(folder: Path) -> set[str]:
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        return set(file.keys())


@pytest.fixture
def dense(tmp_path: Path, embedded_processor: LlavaProcessor) -> Path:
    """A folder whose config.json has the form of transformers 4: rope_theta, no defaults spelled out."""
    folder = tmp_path / "dense"
    model = build(FAMILIES["llava_qwen2"], "sdpa")
    model.resize_token_embeddings(len(embedded_processor.tokenizer))
    model.save_pretrained(folder)
    embedded_processor.save_pretrained(folder)
    config = read(folder)
    text = config["text_config"]
    text["rope_theta"] = text.pop("rope_parameters")["rope_theta"] * 100
    text["made_up"] = [1, 2, 3]
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.46.0"
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "added_by_the_maker.json").write_text("{}")
    (folder / "LICENSE.txt").write_text("as is")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Dense\n")
    return folder


def test_only_the_fields_of_the_deletion_change(dense: Path, tmp_path: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(dense)
    delete_layers(model, [1, 2])
    folder = export(model, AutoProcessor.from_pretrained(dense), plan_for(1, 2), tmp_path / "pruned")
    changed = differences(read(dense), read(folder))
    assert set(changed) == {
        "text_config.num_hidden_layers",
        "text_config.layer_types",
        "text_config.max_window_layers",
    }
    assert changed["text_config.num_hidden_layers"] == (6, 4)
    assert len(read(folder)["text_config"]["layer_types"]) == 4
    for file in dense.iterdir():
        if file.suffix != ".safetensors" and file.name not in ("config.json", "README.md"):
            assert (folder / file.name).read_bytes() == file.read_bytes(), file.name
    assert {file.name for file in folder.iterdir()} == {file.name for file in dense.iterdir()} | ADDED
    names = tensor_names(dense)
    gone = (".layers.4.", ".layers.5.")
    assert tensor_names(folder) == {
        name for name in names if "vision" in name or not any(part in name for part in gone)
    }
    assert "license: apache-2.0" in (folder / "README.md").read_text()
    again = AutoModelForImageTextToText.from_pretrained(folder)
    assert again.config.text_config.rope_parameters["rope_theta"] == 1e6
    with torch.no_grad():
        assert torch.equal(again(**IDS).logits, model(**IDS).logits)


def test_another_type_is_said_where_the_dense_folder_says_it(dense: Path, tmp_path: Path) -> None:
    model = load_pruned(dense, plan_for(1), dtype=torch.bfloat16)
    folder = export(model, None, plan_for(1), tmp_path / "pruned")
    assert read(folder)["torch_dtype"] == "bfloat16" and "dtype" not in read(folder)
    assert not (folder / "tokenizer.json").exists() and (folder / "LICENSE.txt").exists()


def test_a_processor_that_was_changed_is_saved_as_it_is(dense: Path, tmp_path: Path) -> None:
    model, processor = load_pruned(dense, plan_for(1)), AutoProcessor.from_pretrained(dense)
    processor.chat_template = "{{ 'changed' }}"
    folder = export(model, processor, plan_for(1), tmp_path / "pruned")
    assert AutoProcessor.from_pretrained(folder).chat_template == "{{ 'changed' }}"


def test_a_model_that_was_changed_otherwise_is_described_as_it_is(dense: Path, tmp_path: Path) -> None:
    model = load_pruned(dense, plan_for(1))
    model.config.text_config.rms_norm_eps = 0.5
    folder = export(model, None, plan_for(1), tmp_path / "pruned")
    assert AutoModelForImageTextToText.from_pretrained(folder).config.text_config.rms_norm_eps == 0.5


def test_the_files_have_the_mode_of_the_umask(dense: Path, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        folder = export(load_pruned(dense, plan_for(1)), None, plan_for(1), tmp_path / "pruned")
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o640}


FAMILY_NAMES = ("qwen2_vl", "gemma3n", "mllama", "llama4", "qwen3_vl_moe", "granite4_vision", "fuyu")


@pytest.mark.parametrize("name", [*FAMILY_NAMES, "nemotron_h_omni"])
def test_every_family_keeps_its_fields(name: str, tmp_path: Path) -> None:
    """Whatever a class makes of its configuration: on disk only fields about layers change."""
    model, layers = build(FAMILIES[name], "sdpa"), FAMILIES[name].sets[-1]
    model.save_pretrained(tmp_path / "dense")
    pruned = load_pruned(tmp_path / "dense", plan_for(*layers))
    folder = export(pruned, None, plan_for(*layers), tmp_path / "pruned")
    for field, (old, new) in differences(read(tmp_path / "dense"), read(folder)).items():
        counted = isinstance(old, int) and isinstance(new, int) and new < old
        assert counted or isinstance(old, list), (field, old, new)
    again = type(model).from_pretrained(folder)
    assert again.config.to_dict().keys() == pruned.config.to_dict().keys()


def test_layers_that_config_json_promises_and_no_file_holds(tmp_path: Path) -> None:
    """GLM-4.5V's layer for next-token prediction lies behind the decoder's; transformers leaves it out."""
    family = FAMILIES["glm4v_moe"]
    model = build(family, "sdpa")
    model.config.text_config.num_nextn_predict_layers = 1
    model.save_pretrained(tmp_path / "dense")
    pruned = Glm4vMoeForConditionalGeneration.from_pretrained(tmp_path / "dense")
    delete_layers(pruned, [2])
    folder = export(pruned, None, plan_for(2), tmp_path / "pruned")
    assert read(folder)["text_config"]["num_nextn_predict_layers"] == 0
    assert read(tmp_path / "dense")["text_config"]["num_nextn_predict_layers"] == 1
    assert "`num_nextn_predict_layers`" in (folder / "README.md").read_text()


CODE = Path(__file__).parent / "own_code"


@pytest.fixture(params=["", "parts/"])
def own(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A model whose code lies in its folder, or in one below it."""
    folder = tmp_path / f"own_{tmp_path.name}"  # transformers keeps modules by this name
    shutil.copytree(CODE, folder / request.param, ignore=shutil.ignore_patterns("__pycache__"))
    config = {
        "architectures": ["OwnForCausalLM"],
        "model_type": "own",
        "num_hidden_layers": 6,
        "dtype": "float32",
        "auto_map": {
            "AutoConfig": f"{request.param}configuration_own.OwnConfig",
            "AutoModelForCausalLM": f"{request.param}modeling_own.OwnForCausalLM",
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    from transformers import AutoConfig, AutoModelForCausalLM

    trusted = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    model = AutoModelForCausalLM.from_config(trusted, trust_remote_code=True)
    from safetensors.torch import save_file

    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def python_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.py")}


def test_custom_code_travels(own: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    plan, code = plan_for(2, 3), python_files(own)
    model = load_pruned(own, plan, trust_remote_code=True)
    for name in (".git", "__pycache__", "another_model"):
        (own / name).mkdir()
        (own / name / "none_of_the_model.py").touch()
    (own / "another_model" / "config.json").touch()
    folder = export(model, None, plan, tmp_path / "pruned")
    assert set(differences(read(own), read(folder))) == {"num_hidden_layers"}
    assert python_files(folder) == code and len(code) == 2
    again = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    assert len(again.layers) == 4
    assert torch.equal(again(**IDS).logits, model(**IDS).logits)


def test_custom_code_is_not_run_unless_it_is_trusted(
    own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    with pytest.raises(InputError, match="trust_remote_code=True"):
        load_pruned(own, plan_for(2))
    assert capsys.readouterr().out == ""


def test_an_adapter_is_merged_on_request_or_refused(dense: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    model = AutoModelForImageTextToText.from_pretrained(dense)
    settings = peft.LoraConfig(
        r=4, target_modules=r".*language_model.*(q_proj|down_proj)", init_lora_weights=False
    )
    model = peft.get_peft_model(model, settings).base_model.model
    delete_layers(model, [1, 2])
    expected = model(**IDS).logits
    with pytest.raises(InputError, match=r"carries an adapter \(default\).*merge_adapter=True"):
        export(model, None, plan_for(1, 2), tmp_path / "pruned")
    assert [path.name for path in tmp_path.iterdir()] == ["dense"]
    folder = export(model, None, plan_for(1, 2), tmp_path / "pruned", merge_adapter=True)
    again, report = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    assert not {key: keys for key, keys in report.items() if keys}
    assert torch.allclose(again(**IDS).logits, expected, atol=1e-5)
    assert read(folder).keys() == read(dense).keys()


@pytest.fixture(scope="session")
def transformers4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """transformers 4.57 in a folder of its own."""
    if given := os.environ.get("TOPOPRUNE_TRANSFORMERS4"):
        return Path(given)
    folder = tmp_path_factory.mktemp("transformers4")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), *PINS]
    done = subprocess.run(pip, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"transformers 4.57 cannot be installed here: {done.stderr.strip()[-200:]}")
    return folder


def in_transformers4(folder: Path, *given: object) -> str:
    environment = {**os.environ, "PYTHONPATH": str(folder), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(HELPER), *map(str, given)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_a_folder_of_transformers_4_is_read_by_it_as_the_same_model(
    transformers4: Path, tmp_path: Path, embedded_processor: LlavaProcessor
) -> None:
    embedded_processor.save_pretrained(tmp_path / "parts")
    parts = [tmp_path / "parts" / name for name in ("tokenizer.json", "chat_template.jinja")]
    in_transformers4(transformers4, "make", tmp_path / "dense", *parts)
    dense, plan = tmp_path / "dense", plan_for(1, 2)
    model, processor = (
        AutoModelForImageTextToText.from_pretrained(dense),
        AutoProcessor.from_pretrained(dense),
    )
    delete_layers(model, plan.dropped)
    export(model, processor, plan, tmp_path / "pruned")
    export(load_pruned(dense, plan), processor, plan, tmp_path / "partly_read")
    found = json.loads(in_transformers4(transformers4, "read", tmp_path / "pruned").splitlines()[-1])
    assert found["version"].startswith("4.") and found["processor"] == "LlavaProcessor"
    assert found["layers"] == 4 and found["rope_theta"] == 1e6 and not found["wrong"]
    assert found["ids"] == processor(text="How many?", return_tensors="pt").input_ids.tolist()
    expected = model(**IDS).logits[0, -1]
    assert torch.allclose(torch.tensor(found["logits"]), expected, atol=1e-5)
    for name in {path.name for path in (tmp_path / "pruned").iterdir()} - {"README.md"}:
        assert (tmp_path / "pruned" / name).read_bytes() == (tmp_path / "partly_read" / name).read_bytes()
