"""Whole runs of lmms-eval: how they end, what they leave behind, and what the response cache may serve."""

from __future__ import annotations

import functools
import json
import shutil
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lmms_eval import __main__ as command
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.tasks import TaskManager

from lmms_topoprune._util.references import load as load_reference
from lmms_topoprune.errors import GenerationError, OptionError
from lmms_topoprune.harness import batched
from lmms_topoprune.plan import PruningPlan
from lmms_topoprune.surgery import edits

ANSWERS = "SELECT response FROM responses ORDER BY doc_id"


@pytest.fixture
def manager(tasks: Path) -> TaskManager:
    return TaskManager("ERROR", include_path=str(tasks), include_defaults=False)


@pytest.fixture
def evaluate(manager: TaskManager) -> Callable[..., list[str]]:
    """Answers to tiny_questions: evaluate("topopruned_llava", "layers=2", use_cache=...)."""

    def run(model: str, model_args: str, **given: Any) -> list[str]:
        results = simple_evaluate(
            model=model,
            model_args=f"self_test=False,{model_args}",
            tasks=["tiny_questions"],
            task_manager=manager,
            batch_size=4,
            bootstrap_iters=0,
            **given,
        )
        return [sample["resps"][0][0] for sample in results["samples"]["tiny_questions"]]

    return run


@pytest.fixture
def lmms_eval_command(tasks: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`lmms-eval --model ...` in this process, without the two thousand tasks of lmms-eval."""
    monkeypatch.setattr(command, "TaskManager", functools.partial(TaskManager, include_defaults=False))

    def run(model: str, model_args: str, *more: str) -> None:
        given = ["--model", model, "--model_args", model_args, "--tasks", "tiny_questions"]
        monkeypatch.setattr(sys, "argv", ["lmms-eval", *given, "--include_path", str(tasks), *more])
        command.cli_evaluate()

    return run


@pytest.fixture
def mistakes(tmp_path: Path) -> Path:
    """A folder with another model's plan and a calibration file that is too short."""
    PruningPlan("another", "", 7, (2,), "given").save(tmp_path / "seven.json")
    (tmp_path / "few.jsonl").write_text('{"instruction": "Why?"}\n')
    return tmp_path


def save_plan(load: Callable[..., Any], path: Path, layers: str) -> Path:
    load("topopruned_llava", layers=layers).plan.save(path)
    return path


def test_a_command_leaves_the_plan_beside_its_results(lmms_eval_command, folder, tmp_path):
    arguments = f"pretrained={folder},layers=2+4"
    lmms_eval_command("topopruned_llava", arguments, "--output_path", str(tmp_path), "--batch_size", "4")
    (results,) = tmp_path.rglob("*_results.json")
    (path,) = tmp_path.rglob("*_plan.json")
    assert path == results.with_name(results.name.replace("_results", "_plan"))
    plan, run = PruningPlan.load(path), json.loads(path.read_text())["run"]
    assert plan.dropped == (2, 4)
    assert {"load", "self_test", "generate"} <= set(plan.stages)
    assert all(stage["seconds"] >= 0 and stage["peak_bytes"] > 0 for stage in plan.stages.values())
    assert (run["results"], run["model"], run["dtype"]) == (results.name, "topopruned_llava", "torch.float32")
    assert run["answers"]["total"] == 11


@pytest.mark.parametrize(
    ("model_args", "sentence"),
    [
        ("sparsty=0.3", "'sparsty' is no argument of topopruned_llava; .*; did you mean 'sparsity'?"),
        ("pretraned=x", "'pretraned' is no argument .*; did you mean 'pretrained'?"),
        ("sparsity=1.5", "sparsity is 1.5; allowed: 0 <= sparsity < 1"),
        ("sparsity", "model_args holds 'sparsity'; allowed: name=value pairs joined by commas"),
        ("criterion=topologie", "criterion is 'topologie'; allowed: .*; did you mean 'topology'?"),
        ("device=cdua", "device is 'cdua'; allowed: .*; did you mean 'cuda'?"),
        ("dtype=float31", "dtype is 'float31'; allowed: .*; did you mean 'float32'?"),
        (
            "pretrained=./nowhere",
            "pretrained is './nowhere', which is no folder here; pass pretrained=embedded",
        ),
        ("pretrained={tasks}", "a folder without config.json; pass pretrained=embedded or a local folder"),
        ("pretrained={folder},plan=no.json", "plan 'no.json' cannot be read: No such file or directory"),
        (
            "pretrained={folder},sparsity=0.3,calibration=no",
            "calibration is 'no'; allowed: embedded, a JSONL",
        ),
        ("pretrained={folder},plan={tasks}/0.png", "plan '.*0.png' is not valid JSON"),
        ("pretrained={folder},plan={mistakes}/seven.json", "is for 7 layers, but '.*' has 6"),
        ("pretrained={folder},sparsity=0.3,k=1.5", "k is '1.5'; allowed: a whole number or several"),
        (
            "pretrained={folder},sparsity=0.3,criterion=topology,calibration={mistakes}/few.jsonl",
            "k is '5', but there are only 1 calibration samples",
        ),
        ("pretrained={folder},layers=99", "layer 99 does not exist; the model has layers 0 to 5"),
        ("pretrained={folder},batch_size=many", "batch_size is 'many'; allowed: whole numbers from 1"),
    ],
)
def test_a_mistake_ends_the_command_with_one_sentence(
    lmms_eval_command, folder, tasks, mistakes, capsys, monkeypatch, model_args, sentence
):
    from transformers import LlavaForConditionalGeneration

    def loaded(*_: Any, **__: Any) -> None:
        pytest.fail("a mistake has to be found before the model is loaded")

    monkeypatch.setattr(LlavaForConditionalGeneration, "from_pretrained", loaded)
    with pytest.raises(SystemExit, match=f"^lmms-topoprune: .*{sentence}") as exit:
        lmms_eval_command(
            "topopruned_llava", model_args.format(folder=folder, tasks=tasks, mistakes=mistakes)
        )
    assert "\n" not in exit.value.code
    assert "Traceback" not in "".join(capsys.readouterr())


def test_a_fault_in_code_of_ones_own_ends_the_command_with_its_traceback(
    lmms_eval_command, folder, tmp_path, capsys
):
    file = tmp_path / "mine.py"
    file.write_text("def score(layers):\n    return 1 // 0\n")
    with pytest.raises(SystemExit, match=f"^lmms-topoprune: criterion '{file}:score', line 1 of .*ZeroDiv"):
        lmms_eval_command("topopruned_llava", f"pretrained={folder},sparsity=0.3,criterion={file}:score")
    assert f'Traceback (most recent call last):\n  File "{file}", line 2' in capsys.readouterr().err


def test_a_failed_generation_of_a_family_of_ones_own_shows_its_traceback(
    lmms_eval_command, folder, tmp_path, capsys, monkeypatch
):
    file = tmp_path / "answers.py"
    file.write_text(
        "from lmms_topoprune.harness.batched import BatchedGeneration\n"
        "class Answers(BatchedGeneration):\n"
        "    def _encode(self, prompts):\n"
        "        return 1 // 0\n"
    )
    answers = load_reference(f"{file}:Answers", "generation")
    monkeypatch.setattr(batched.BatchedGeneration, "_encode", answers._encode)
    with pytest.raises(SystemExit, match=r"failed in task 'tiny_questions', document .*ZeroDivisionError"):
        lmms_eval_command("dense_llava", f"pretrained={folder}")
    assert f'Traceback (most recent call last):\n  File "{file}", line 4' in capsys.readouterr().err


def test_an_unreachable_hub_says_what_to_pass_instead(lmms_eval_command, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    sentence = (
        "llava-1.5-7b-hf is not on this machine and the Hugging Face hub cannot be reached; pass pretrained="
    )
    with pytest.raises(SystemExit, match=sentence):
        lmms_eval_command("topopruned_llava", "sparsity=0.3")


def test_dense_refuses_to_prune(load):
    for given in ({"sparsity": 0.3}, {"layers": "2"}, {"plan": "x.json"}, {"criterion": "cosine"}):
        with pytest.raises(OptionError, match="dense_llava deletes nothing, so leave it out"):
            load("dense_llava", **given)


def test_a_broken_deletion_is_never_evaluated(lmms_eval_command, folder, monkeypatch):
    """The self-test is on without being asked for, and stops the command with the reason."""
    monkeypatch.setattr(edits, "_of_layers", lambda *_: ())  # layers keep their old numbers
    monkeypatch.setattr(batched.BatchedGeneration, "generate_until", lambda *_: pytest.fail("evaluated"))
    sentence = "^lmms-topoprune: .*layer 2, self_attn: layer_idx is 3, the configuration makes it 2"
    with pytest.raises(SystemExit, match=sentence):
        lmms_eval_command("topopruned_llava", f"pretrained={folder},layers=2")


def test_a_failed_generation_ends_the_command(lmms_eval_command, folder, monkeypatch):
    monkeypatch.setattr(batched.BatchedGeneration, "_encode", lambda *_: 1 / 0)
    with pytest.raises(SystemExit, match=r"failed in task 'tiny_questions', document .*ZeroDivisionError"):
        lmms_eval_command("dense_llava", f"pretrained={folder}")


def test_python_callers_get_the_exception(evaluate, folder, monkeypatch):
    monkeypatch.setattr(batched.BatchedGeneration, "_encode", lambda *_: 1 / 0)
    with pytest.raises(GenerationError):
        evaluate("dense_llava", f"pretrained={folder}")


@pytest.mark.slow
def test_a_changed_plan_is_never_served_old_answers(evaluate, load, folder, tmp_path):
    plan, cache = tmp_path / "plan.json", str(tmp_path / "cache")
    arguments = f"pretrained={folder},plan={plan}"
    save_plan(load, plan, "2")
    first = evaluate("topopruned_llava", arguments, use_cache=cache)
    save_plan(load, plan, "1+3+4")
    second = evaluate("topopruned_llava", arguments, use_cache=cache)
    assert second == evaluate("topopruned_llava", arguments)
    assert second != first
    save_plan(load, plan, "2")
    assert evaluate("topopruned_llava", arguments, use_cache=cache) == first


def test_an_unchanged_plan_is_served_from_the_cache(evaluate, folder, tmp_path, monkeypatch):
    arguments, cache = f"pretrained={folder},layers=2", str(tmp_path / "cache")
    first = evaluate("topopruned_llava", arguments, use_cache=cache)
    assert len(sqlite3.connect(tmp_path / "cache" / "cache.db").execute(ANSWERS).fetchall()) == 11
    monkeypatch.setattr(batched.BatchedGeneration, "_encode", lambda *_: 1 / 0)
    assert evaluate("topopruned_llava", arguments, use_cache=cache) == first


def test_changed_weights_are_never_served_old_answers(evaluate, save_llava, tmp_path):
    folder, cache = tmp_path / "model", str(tmp_path / "cache")
    first = evaluate("dense_llava", f"pretrained={save_llava(folder, seed=1)}", use_cache=cache)
    shutil.rmtree(folder)
    second = evaluate("dense_llava", f"pretrained={save_llava(folder, seed=2)}", use_cache=cache)
    assert second != first
    assert second == evaluate("dense_llava", f"pretrained={folder}")


def test_without_our_key_the_cache_serves_stale_answers(evaluate, load, folder, tmp_path, monkeypatch):
    """The tests above can fail: this is lmms-eval's cache as it is."""
    from lmms_eval.caching.response_cache import ResponseCache

    plan, cache = tmp_path / "plan.json", str(tmp_path / "cache")
    save_plan(load, plan, "2")
    monkeypatch.setattr(ResponseCache, "execute", ResponseCache.execute.__wrapped__)
    monkeypatch.setattr("lmms_topoprune.harness.wrapper.tell_plans_apart", lambda: None)
    first = evaluate("topopruned_llava", f"pretrained={folder},plan={plan}", use_cache=cache)
    save_plan(load, plan, "1+3+4")
    assert evaluate("topopruned_llava", f"pretrained={folder},plan={plan}", use_cache=cache) == first
