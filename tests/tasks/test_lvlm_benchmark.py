"""benchmarks/lvlm.py on tiny random models of the classes it is for, with stand-in rows of its tasks."""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import datasets
import lmms_eval.tasks
import pytest
import standins
import torch
import transformers as hf
from families import qwen_line, wrapped
from families.tiny import text, tiny, tokenizer

from benchmarks import lvlm
from lmms_topoprune.cli.main import topoprune

pytestmark = pytest.mark.slow


def llava() -> tuple[hf.LlavaConfig, hf.LlavaProcessor]:
    words = tokenizer("<image>", image="<image>\n", named={"image_token": "<image>"})
    config = hf.LlavaConfig(
        vision_config=tiny(hf.CLIPVisionConfig, image_size=28, patch_size=14).to_dict(),
        text_config=text(hf.LlamaConfig, words).to_dict(),
        image_token_index=words.convert_tokens_to_ids("<image>"),
    )
    side = {"height": 28, "width": 28}
    processor = hf.LlavaProcessor(
        hf.CLIPImageProcessor(size={"shortest_edge": 28}, crop_size=side),
        words,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=words.chat_template,
    )
    return config, processor


def llava_next() -> tuple[hf.LlavaNextConfig, hf.LlavaNextProcessor]:
    words = tokenizer("<image>", image="<image>\n", named={"image_token": "<image>"})
    grid = [[28, 56], [56, 28]]
    config = hf.LlavaNextConfig(
        vision_config=tiny(hf.CLIPVisionConfig, image_size=28, patch_size=14).to_dict(),
        text_config=text(hf.MistralConfig, words, sliding_window=None).to_dict(),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=grid,
    )
    images = hf.LlavaNextImageProcessor(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}, image_grid_pinpoints=grid
    )
    processor = hf.LlavaNextProcessor(
        images,
        words,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=words.chat_template,
    )
    return config, processor


BUILDERS = {"llava": llava, "llava_next": llava_next, "qwen2_5_vl": qwen_line.qwen2_5_vl}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with stand-ins of the data sets and a tiny model of every class."""
    folder = tmp_path_factory.mktemp("lvlm")
    standins.write_mme(folder, images=10)
    standins.write_gqa(folder, questions=6)
    standins.write_mmbench(folder, questions=8)
    for name in BUILDERS:
        wrapped.save(name, folder / "models" / name, BUILDERS)
    return folder


Run = Callable[..., int]


@pytest.fixture(scope="module")
def run(work: Path) -> Run:
    """run("--models", "") -> exit code. The commands that the script starts run in this process."""

    settings = "--criteria cosine,last_n --sparsities 0.3 --seeds 0 --samples 8 --batch-size 2"
    arguments = ["out", "--models", "", *settings.split(), "--dtype", "float32", "--device", "cpu"]
    for name, family in (("llava", "llava"), ("llava_next", "llava"), ("qwen2_5_vl", "qwen2_5_vl")):
        arguments += ["--model", f"{name}=dense_{family}:models/{name}"]

    # Indexing lmms-eval's two thousand tasks takes seconds each time.
    manager = functools.cache(lmms_eval.tasks.TaskManager)

    def call(*more: str) -> int:
        with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
            patch.chdir(work)
            patch.setenv("TOPOPRUNE_CACHE", str(work / "cache"))
            patch.setattr(datasets.config, "HF_DATASETS_CACHE", work / "hf")
            patch.setattr(lmms_eval.tasks, "TaskManager", manager)
            patch.setattr(lvlm, "topoprune", lambda *given: topoprune.main([*given], standalone_mode=False))
            lvlm.main([*arguments, *more])
        return int(end.value.code or 0)

    return call


@pytest.fixture(scope="module")
def first(run: Run) -> int:
    return run()


def test_every_model_has_a_table_with_three_tasks_and_latency(work: Path, first: int) -> None:
    assert first == 0
    text = (work / "out" / "table.md").read_text()
    for name in BUILDERS:
        assert f"## {name} (models/{name})" in text
        found = json.dumps(json.loads((work / "out" / name / "table.json").read_text()))
        for task in ("mme", "gqa", "mmbench_en_dev_letters", "latency"):
            assert task in found
        assert "cosine" in found and "last_n" in found


def test_the_same_command_again_evaluates_nothing_anew(work: Path, run: Run, first: int) -> None:
    before = {path: path.stat().st_mtime_ns for path in (work / "out").rglob("*_results.json")}
    # Dense and at least one set of layers each; criteria that choose the same layers share an evaluation.
    assert len(before) >= 6
    assert run() == 0
    assert {path: path.stat().st_mtime_ns for path in (work / "out").rglob("*_results.json")} == before


def test_an_unknown_model_is_one_sentence(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--models", "llava-2") == 2
    assert "--models is llava-2; allowed: llava-1.5-7b" in capsys.readouterr().err


def test_a_command_that_fails_ends_the_script() -> None:
    lvlm.topoprune("--version")
    with pytest.raises(subprocess.CalledProcessError):
        lvlm.topoprune("pruna")


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("(C)", "C"),
        ("B. red", "B"),
        ("red", "A"),
        ("The answer is C", "C"),
        ("D", ""),
        ("Because", ""),
        ("", ""),
    ],
)
def test_the_letter_is_read(text: str, letter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(lvlm.OWN_TASKS))
    import mmbench

    assert mmbench.read_letter(text, {"A": "red", "B": "blue", "C": "green"}) == letter
    assert mmbench.options({"A": "x", "B": "y", "C": "nan", "D": None}) == {"A": "x", "B": "y"}


def test_tiny_models_are_of_the_classes_that_the_benchmark_is_for(work: Path) -> None:
    kinds = {json.loads((work / "models" / n / "config.json").read_text())["model_type"] for n in BUILDERS}
    assert kinds == {"llava", "llava_next", "qwen2_5_vl"}
    assert torch.float32 == hf.AutoConfig.from_pretrained(work / "models" / "llava").dtype
