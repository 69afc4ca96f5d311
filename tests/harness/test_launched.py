"""Two processes under torchrun and accelerate, through lmms-eval itself: the results of one process."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from lmms_eval import __main__ as command
from lmms_eval.tasks import TaskManager

from lmms_topoprune._util.packaged import shared_path
from lmms_topoprune.plan import PruningPlan

pytestmark = pytest.mark.slow

MODEL_ARGS = "pretrained=embedded,sparsity=0.2,samples=24,k=3,device=cpu"
TASK = "topoprune_yesno"
SCRIPT = Path(__file__).parents[1] / "helpers" / "own_tasks.py"
LAUNCHERS = {
    "torchrun": "torch.distributed.run --standalone --nproc_per_node 2",
    "accelerate": "accelerate.commands.launch --cpu --num_processes 2 --num_machines 1 --main_process_port 0",
}


def arguments(model_args: str, tasks: Path, output: Path) -> list[str]:
    given = ["--model", "topopruned_llava", "--model_args", model_args, "--tasks", TASK]
    more = ["--include_path", str(tasks), "--limit", "6", "--batch_size", "2", "--log_samples"]
    return [*given, *more, "--output_path", str(output)]


def launched(launcher: str, given: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    settings = {
        **os.environ,
        "ACCELERATE_USE_CPU": "true",
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "TOPOPRUNE_CACHE": str(folder / "cache"),
    }
    return subprocess.run(
        [sys.executable, "-m", *LAUNCHERS[launcher].split(), str(SCRIPT), *given],
        env=settings,
        capture_output=True,
        text=True,
        timeout=600,
    )


def outcome(output: Path) -> tuple[PruningPlan, dict[str, Any], dict[int, str]]:
    """The plan, the scores and the answers of a run."""
    (results,) = output.rglob("*_results.json")
    (plan,) = output.rglob("*_plan.json")
    (samples,) = output.rglob(f"*_samples_{TASK}.jsonl")
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    scores = json.loads(results.read_text())["results"][TASK]
    return PruningPlan.load(plan), scores, {row["doc_id"]: row["filtered_resps"] for row in rows}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("alone")


@pytest.fixture(scope="module")
def alone(place: Path) -> tuple[PruningPlan, dict[str, Any], dict[int, str]]:
    """The same command in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOPOPRUNE_CACHE", str(place / "cache"))
        patch.setattr(command, "TaskManager", functools.partial(TaskManager, include_defaults=False))
        patch.setattr(sys, "argv", ["lmms-eval", *arguments(MODEL_ARGS, shared_path("tasks"), place)])
        command.cli_evaluate()
    return outcome(place)


@pytest.mark.parametrize(("launcher", "again"), [("torchrun", False), ("accelerate", True)])
def test_two_processes_give_the_results_of_one(launcher, again, alone, place, tmp_path):
    """Also where one process has been there already, so that both load without the dropped layers."""
    if again:
        shutil.copytree(place / "cache", tmp_path / "cache")
    run = launched(launcher, arguments(MODEL_ARGS, shared_path("tasks"), tmp_path), tmp_path)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-3000:]
    plan, scores, answers = outcome(tmp_path)
    assert ("calibrate (cached)" in plan.stages, "calibrate" in plan.stages) == (again, not again)
    assert ("loading without the dropped layers" in run.stdout + run.stderr) is again
    assert (plan.hash, plan.dropped) == (alone[0].hash, alone[0].dropped)
    assert plan.scores == pytest.approx(alone[0].scores, rel=1e-5)  # angles magnify rounding
    assert answers == alone[2] and len(answers) == 6
    assert scores == alone[1]


def test_a_process_that_fails_ends_the_run_with_its_reason(tmp_path):
    """Only process 1 cannot read the calibration file's image."""
    hooks = "import os\n\ndef visuals(doc):\n    assert os.environ['RANK'] == '0', 'no such picture here'\n"
    (tmp_path / "hooks.py").write_text(hooks + "    return []\n")
    rows = "\n".join(json.dumps({"q": str(i), "a": "yes"}) for i in range(30))
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text(rows)
    lines = [
        f"task: {TASK}", "dataset_path: json", "test_split: test", "training_split: train",
        f"dataset_kwargs: {{data_files: {{train: {tmp_path}/train.jsonl, test: {tmp_path}/test.jsonl}}}}",
        "output_type: generate_until", "doc_to_visual: !function hooks.visuals",
        'doc_to_text: "{{q}}"', 'doc_to_target: "{{a}}"',
    ]  # fmt: skip
    (tmp_path / "own.yaml").write_text("\n".join(lines))
    given = f"{MODEL_ARGS},calibration=task:{TASK}:train"
    start = time.monotonic()
    run = launched("torchrun", arguments(given, tmp_path, tmp_path / "out"), tmp_path)
    assert run.returncode != 0
    said = [line for line in run.stderr.splitlines() if line.startswith("lmms-topoprune: ")]
    assert said and "process 1 of 2 failed" in said[0] and "no such picture here" in said[0], run.stderr[
        -3000:
    ]
    assert len(said) == 1 and time.monotonic() - start < 300
