"""`topoprune eval --json`: stdout is one JSON object, whatever lmms-eval prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


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


def evaluate(model_folder, tmp_path, model_args, *more):
    arguments = ("--model", "topopruned_llava", "--model_args", f"pretrained={model_folder},{model_args}")
    arguments += ("--tasks", "topoprune_yesno", "--limit", 2, "--batch_size", 2, "--json", *more)
    process = start("eval", *arguments, cache=tmp_path / "cache")
    out, err = process.communicate(timeout=300)
    return process.returncode, json.loads(out), err


@pytest.mark.parametrize("kept", [True, False])
def test_results_and_plan(model_folder, tmp_path, kept):
    more = ("--output_path", tmp_path / "out", "--log_samples") if kept else ()
    code, found, err = evaluate(model_folder, tmp_path, "sparsity=0.3,samples=16", *more)
    assert code == 0, err
    assert 0 <= found["results"]["topoprune_yesno"]["accuracy,none"] <= 1
    assert len(found["plan"]["dropped"]) == 2
    assert "|topoprune_yesno" in err  # the table is still there for whoever looks
    files = list((tmp_path / "out").rglob("*_results.json"))
    assert [found["file"]] == ([str(file) for file in files] if kept else [None])


def test_a_mistake_is_json_too(model_folder, tmp_path):
    code, found, err = evaluate(model_folder, tmp_path, "sparsity=3")
    assert code == 1 and "sparsity is 3.0; allowed" in found["error"]
    assert "Traceback" not in err
