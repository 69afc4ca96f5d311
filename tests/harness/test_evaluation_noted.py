"""An evaluation is noted however it is started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lmms_topoprune.compat.evaluation import evaluation


def test_nothing_is_noted_outside_of_an_evaluation() -> None:
    assert evaluation().tracker is None and evaluation().tasks == ()


EVALUATE = """
import functools, json, sys
{imports}
from lmms_eval.tasks import TaskManager
manager = TaskManager("ERROR", include_path={tasks!r}, include_defaults=False)
found = [call(model="topopruned_llava", model_args="pretrained={model},layers=2,self_test=False",
    tasks=["tiny_questions"], task_manager=manager, limit=2, bootstrap_iters=0).get("plan")
    for call in ({calls})]
print(json.dumps(found))
"""
IMPORTED = "from lmms_eval.evaluator import simple_evaluate as early\nimport lmms_eval.evaluator"
BY_HAND = f"""
import importlib.metadata as metadata
found, metadata.entry_points = metadata.entry_points, lambda **given: metadata.EntryPoints(())
import lmms_eval.models
metadata.entry_points = found
{IMPORTED}
from lmms_topoprune.harness.manifests import manifests
for manifest in manifests():
    lmms_eval.evaluator.models.MODEL_REGISTRY_V2.register_manifest(manifest, overwrite=True)
"""
CALLS = "early, lmms_eval.evaluator.simple_evaluate"


@pytest.fixture
def plans(folder: Path, tasks: Path) -> Callable[[str], list[dict[str, Any] | None]]:
    """plans(IMPORTED): of an evaluation by each of CALLS, in a new process that imports like this."""

    def evaluate(imports: str) -> list[dict[str, Any] | None]:
        code = EVALUATE.format(imports=imports, calls=CALLS, tasks=str(tasks), model=folder)
        done = python("-c", code)
        found: list[dict[str, Any] | None] = json.loads(done.stdout.splitlines()[-1])
        return found

    return evaluate


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done


@pytest.mark.slow
@pytest.mark.parametrize("first", ["", "import lmms_eval.models\n"])
def test_results_of_a_model_string_carry_the_plan(first: str, plans: Any) -> None:
    """However the function is reached, and whether or not the models were imported before it."""
    for plan in plans(first + IMPORTED):
        assert plan["dropped"] == [2] and len(plan["hash"]) == 16


@pytest.mark.slow
def test_a_reference_taken_before_registration_by_hand(plans: Any) -> None:
    """There is one only without the entry point; it evaluates, without the plan in its results."""
    early, late = plans(BY_HAND)
    assert early is None and late is not None


@pytest.mark.slow
def test_the_command_leaves_plan_and_results(folder: Path, tasks: Path, tmp_path: Path) -> None:
    """`lmms-eval eval`; tests/tasks/test_real_tasks.py tries `python -m lmms_eval`."""
    model_args = f"pretrained={folder},layers=2,self_test=False"
    arguments = ["--model", "topopruned_llava", "--model_args", model_args, "--tasks", "tiny_questions"]
    more = ["--limit", "2", "--include_path", str(tasks), "--output_path", str(tmp_path / "out")]
    python("-c", "from lmms_eval.cli.dispatch import main; main()", "eval", *arguments, *more)
    (results,) = (tmp_path / "out").rglob("*_results.json")
    (plan,) = (tmp_path / "out").rglob("*_plan.json")
    assert json.loads(results.read_text())["plan"]["hash"] == json.loads(plan.read_text())["hash"]
