"""`topoprune eval --json`: stdout is one JSON object, whatever lmms-eval prints."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lmms_topoprune.cli.evaluate import _judged

pytestmark = pytest.mark.slow


def start(*arguments: object, cache: Path) -> subprocess.Popen[str]:
    """The command line in a process of its own."""
    environment = {
        **os.environ,
        "TOPOPRUNE_CACHE": str(cache),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
    }
    command = [sys.executable, "-m", "lmms_topoprune.cli.main", *map(str, arguments)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def evaluate(model_folder, tmp_path, model_args, *more, tasks="topoprune_yesno"):
    arguments = ("--model", "topopruned_llava", "--model_args", f"pretrained={model_folder},{model_args}")
    arguments += ("--tasks", tasks, "--limit", 2, "--batch_size", 2, "--json", *more)
    process = start("eval", *arguments, cache=tmp_path / "cache")
    out, err = process.communicate(timeout=300)
    return process.returncode, json.loads(out), err


@pytest.mark.parametrize("output", [None, "--output"])
def test_results_and_plan(model_folder, tmp_path, output):
    """lmms-eval takes its options abbreviated, too; what it is told to keep is kept."""
    more = (output, tmp_path / "out", "--log_samples") if output else ()
    code, found, err = evaluate(model_folder, tmp_path, "sparsity=0.3,samples=16", *more)
    assert code == 0, err
    (run,) = found["runs"]
    assert 0 <= run["results"]["topoprune_yesno"]["accuracy,none"] <= 1
    assert len(run["plan"]["dropped"]) == 2
    assert "|topoprune_yesno" in err  # the table is still there for whoever looks
    files = [str(file) for file in (tmp_path / "out").rglob("*_results.json")]
    assert [run["file"]] == (files if output else [None])
    plans = [json.loads(file.read_text()) for file in (tmp_path / "out").rglob("*_plan.json")]
    assert [plan["hash"] for plan in plans] == [run["plan"]["hash"]] * len(files)


def test_a_mistake_is_json_too(model_folder, tmp_path):
    code, found, err = evaluate(model_folder, tmp_path, "sparsity=3")
    assert code == 2 and "sparsity is 3.0; allowed" in found["error"]
    assert "Traceback" not in err


def test_nothing_evaluated_is_no_success(model_folder, tmp_path):
    code, found, _ = evaluate(model_folder, tmp_path, "sparsity=0.3", tasks="no_such_task")
    assert code == 2 and "task is 'no_such_task'; allowed: the " in found["error"]
    code, found, _ = evaluate(model_folder, tmp_path, "sparsity=0.3", "--log_samples")  # without a folder
    assert code == 1 and "evaluated nothing" in found["error"]


def test_without_json_it_is_no_success_either(model_folder, tmp_path):
    given = ("eval", "--model", "dense_llava", "--model_args", f"pretrained={model_folder}")
    for tasks, code, sentence in (
        ("topoprune_vqb", 2, "task is 'topoprune_vqb'; allowed: .*did you mean 'topoprune_vqa'"),
        ("list", 0, "$"),
    ):
        process = start(*given, "--tasks", tasks, cache=tmp_path / "cache")
        _, err = process.communicate(timeout=300)
        assert process.returncode == code, err
        assert re.search(sentence, err) and "Traceback" not in err


def test_a_folder_that_cannot_be_written_is_refused_at_once(model_folder, tmp_path):
    (tmp_path / "file").touch()
    for given in (("--output_path", tmp_path / "file"), (f"--output_path={tmp_path / 'file'}",)):
        code, found, err = evaluate(model_folder, tmp_path, "layers=1", *given)
        assert code == 2 and "output_path is" in found["error"] and "Responding" not in err


def test_results_that_cannot_be_kept_are_no_success(model_folder, tmp_path):
    """lmms-eval itself only warns. Abbreviated, the option is not seen beforehand."""
    (tmp_path / "file").touch()
    code, found, _ = evaluate(model_folder, tmp_path, "layers=1", "--output", tmp_path / "file")
    assert code == 1 and "could not be written" in found["error"] and len(found["runs"]) == 1


def test_other_ranks_are_silent(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with _judged([], as_json=True):
        print("a table")
    assert capsys.readouterr().out == ""
