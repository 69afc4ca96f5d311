"""model_args: where they come from, which of them the wrapped class takes, and what contradicts itself."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from loguru import logger
from transformers import LlamaConfig

from lmms_topoprune.errors import OptionError
from lmms_topoprune.families import registered
from lmms_topoprune.harness.arguments import choose_dtype, completed, parameters, parse, place, take_options


class Base:
    def __init__(self, pretrained: str = "base", device: str = "cuda", attn: str | None = None) -> None: ...


class Outer(Base):
    def __init__(self, pretrained: str = "outer", frames: int = 8, **kwargs: Any) -> None:
        super().__init__(pretrained=pretrained, **kwargs)


class Closed(Outer):
    def __init__(self, *, size: int = 1) -> None: ...


def test_arguments_are_collected_along_the_constructors_that_hand_them_on():
    assert parameters(Outer) == {"pretrained": "outer", "frames": 8, "device": "cuda", "attn": None}
    assert parameters(Closed) == {"size": 1}


def test_a_wrapper_that_takes_kwargs_takes_what_its_base_takes():
    """lmms-eval's qwen3_5 hands **kwargs to Qwen3_VL, which names them."""
    from lmms_topoprune.harness import classes

    allowed = parameters(classes.dense_qwen3_5_simple.wrapped)
    base = parameters(classes.dense_qwen3_vl_simple.wrapped)
    assert allowed.keys() >= base.keys() | {"max_frames"}
    assert allowed["pretrained"] != base["pretrained"]


def test_a_mapping_is_as_good_as_text():
    assert parse({"sparsity": 0.3, "pretrained": "x"}) == parse("sparsity=0.3,pretrained=x")


@pytest.mark.parametrize(
    ("given", "command", "size"),
    [("batch_size=2", 1, 2), ("batch_size=2", None, 2), ("batch_size=2", 2, 2), ("", 8, 8), ("", 1, 1)],
)
def test_a_batch_size_is_that_of_model_args_or_the_option(given, command, size):
    found = completed(parse(given), {"batch_size": command, "max_batch_size": None})
    assert found == {"batch_size": size}


@pytest.mark.parametrize(("name", "inside", "beside"), [("batch_size", 2, 8), ("device", "cpu", "cuda:0")])
def test_an_option_that_contradicts_model_args_is_refused(name, inside, beside):
    with pytest.raises(OptionError, match=f"{name} is {inside!r} in model_args and {beside!r} beside them"):
        completed(parse(f"{name}={inside}"), {name: beside})


def test_an_automatic_batch_size_is_refused_at_once():
    with pytest.raises(OptionError, match="batch_size is 'auto'; allowed: whole numbers from 1"):
        place({"batch_size": "auto", "device": "cpu"}, {"batch_size": 1, "device": "cuda"})


@pytest.mark.parametrize(
    ("model", "criterion"),
    [
        ("cosine_pruned_llava", "random"),
        ("greedy_pruned_llava", "reverse:greedy"),
        ("random_pruned_gemma3", "cosine"),
    ],
)
def test_a_criterion_that_contradicts_the_models_name_is_refused(model, criterion):
    family = model.rpartition("_")[2]
    with pytest.raises(OptionError, match=f"criterion is '{criterion}', but {model} .* topopruned_{family}"):
        take_options(registered()[model], {"criterion": criterion}, {})


@pytest.mark.parametrize(
    ("model", "criterion"),
    [
        ("topopruned_llava", "random"),
        ("topopruned_llava", "reverse:cosine"),
        ("cosine_pruned_llava", "cosine"),
    ],
)
def test_a_criterion_that_the_name_leaves_open_is_taken(model, criterion):
    assert take_options(registered()[model], {"criterion": criterion}, {}).criterion == criterion


def test_a_file_of_families_among_the_arguments_is_told_where_it_goes():
    with pytest.raises(OptionError, match=r"families is 'mine.toml'.* TOPOPRUNE_FAMILIES"):
        take_options(registered()["topopruned_llava"], {"families": "mine.toml"}, {})


@pytest.mark.parametrize(
    ("name", "arguments", "sentence"),
    [
        ("topopruned_llava", {}, "topopruned_llava deletes nothing: sparsity is 0; pass sparsity=0.3"),
        (
            "cosine_pruned_llava",
            {"sparsity": 0.01},
            "sparsity is 0.01, which is less than half of one of",
        ),
        ("dense_llava", {}, None),
        ("random_pruned_llava", {"sparsity": 0.2}, None),
    ],
)
def test_a_pruned_model_without_anything_pruned_says_so(load, capfd, name, arguments, sentence):
    sink = logger.add(sys.stderr, level="WARNING")
    load(name, **arguments)
    logger.remove(sink)
    warned = capfd.readouterr().err
    assert (sentence or "deletes nothing") in warned if sentence else "deletes nothing" not in warned


@pytest.mark.parametrize(
    ("capabilities", "width", "found"),
    [
        ({"avx512_bf16": True}, 4096, torch.bfloat16),
        ({"amx_bf16": True}, 1024, torch.bfloat16),
        ({"amx_bf16": True}, 960, torch.float32),
        ({"avx512_f": True}, 4096, torch.float32),
        ({}, 4096, torch.float32),
    ],
)
def test_auto_on_a_cpu_depends_on_processor_and_model(capabilities, width, found, tmp_path, monkeypatch):
    LlamaConfig(hidden_size=width).save_pretrained(tmp_path)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    given = {"pretrained": str(tmp_path)}
    assert choose_dtype("auto", "cpu", given, {"dtype": "auto"}) == given["dtype"] == found
    assert choose_dtype("auto", "cuda", given, {"dtype": "auto"}) is None
    assert choose_dtype("float16", "cpu", {}, {}) == torch.float16
