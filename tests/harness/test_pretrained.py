"""A checkpoint's own code is not run, and not asked about, unless somebody says so."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from lmms_eval import models
from transformers import AutoConfig, LlamaConfig

from lmms_topoprune._util.device import find_device
from lmms_topoprune.cli.loading import load
from lmms_topoprune.errors import InputError, OptionError, whole_number
from lmms_topoprune.harness.pretrained import resolve, unloadable

CODE = """
from pathlib import Path
from transformers import PretrainedConfig
Path({marker!r}).touch()

class OwnConfig(PretrainedConfig):
    model_type = "own"
"""


@pytest.fixture
def own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A folder with code, and the file that appears when it runs."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it was asked for"))
    folder, marker = tmp_path / "model", tmp_path / "ran"
    folder.mkdir()
    (folder / "own.py").write_text(CODE.format(marker=str(marker)))
    config = {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig"}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder, marker


def test_code_is_not_run_and_not_asked_about(
    own_code: tuple[Path, Path], capsys: pytest.CaptureFixture
) -> None:
    folder, marker = own_code
    path = resolve(str(folder))
    with pytest.raises(ValueError) as refused:
        AutoConfig.from_pretrained(path)
    said = str(unloadable(str(folder), refused.value))
    assert "comes with code of its own" in said and "trust_remote_code=True" in said and "\n" not in said
    assert not marker.exists() and capsys.readouterr().out == ""


def test_code_is_run_where_it_is_trusted(own_code: tuple[Path, Path]) -> None:
    folder, marker = own_code
    AutoConfig.from_pretrained(resolve(str(folder)), trust_remote_code=True)
    assert marker.exists()


class Payload:
    """Pickled, it makes a file of this name when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


def lying(told: bytes | dict[str, Any], length: int | None = None) -> bytes:
    header = told if isinstance(told, bytes) else json.dumps(told).encode()
    return (len(header) if length is None else length).to_bytes(8, "little") + header


HEADERS = {
    "longer than the file": lying(b"{}", 2**62),
    "deep": lying(b"[" * 10**5),
    "beyond the file": lying(
        {"lm_head.weight": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
    ),
}


@pytest.mark.parametrize("weights", [*HEADERS, "pickle"])
def test_hostile_weights_end_in_one_sentence(weights: str, tmp_path: Path) -> None:
    """Nothing that a pickle holds is run, and no header is believed."""
    config = {"vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2}
    LlamaConfig(**config, num_attention_heads=1, architectures=["LlamaForCausalLM"]).save_pretrained(tmp_path)
    marker = tmp_path / "ran"
    if weights == "pickle":
        (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({"lm_head.weight": Payload(marker)}))
    else:
        (tmp_path / "model.safetensors").write_bytes(HEADERS[weights])
    with pytest.raises(InputError, match="which transformers cannot load") as refused:
        load(str(tmp_path), "float32", "cpu")
    assert "\n" not in str(refused.value) and not marker.exists()


@pytest.mark.parametrize("value", ["abc", "-2", "1.5", ""])
def test_a_bad_environment_variable_is_a_sentence(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", value)
    with pytest.raises(OptionError, match=f"environment variable RANK is '{value}'; allowed: a whole number"):
        whole_number("RANK")
    monkeypatch.setenv("RANK", "3")
    assert whole_number("RANK") == 3
    monkeypatch.setenv("RANK", "-1")
    assert whole_number("RANK") == 0 and whole_number("RANK", 1) == 1
    monkeypatch.delenv("RANK")
    assert whole_number("RANK") == 0
    assert find_device("cpu") == "cpu"


def test_a_folder_of_an_adapter_alone_is_refused_with_the_reason(tmp_path: Path) -> None:
    """Its layers_to_transform are numbers of the dense model's layers."""
    (tmp_path / "adapter_config.json").write_text(json.dumps({"layers_to_transform": [1, 4]}))
    with pytest.raises(InputError, match=r"an adapter, which counts the layers of another model; merge it"):
        resolve(str(tmp_path))


def test_a_model_of_another_family_is_refused() -> None:
    """transformers warns, fills what does not fit with random numbers, and the model answers nonsense."""
    wanted = "'embedded', a model of type llava, but qwen2_vl loads qwen2_vl; pass it to the model of its"
    with pytest.raises(InputError, match=wanted):
        models.get_model("topopruned_qwen2_vl")(pretrained="embedded", device="cpu", layers="3")
