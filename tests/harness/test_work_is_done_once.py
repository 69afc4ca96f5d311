"""Samples are drawn, worded and hashed once a run, and no calibration pass is run for nothing."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from operator import ne
from pathlib import Path
from typing import Any

import pytest

from lmms_topoprune.calibration import calibration_set
from lmms_topoprune.calibration.prompts import Prompter
from lmms_topoprune.cli.main import main
from lmms_topoprune.harness.session import Session
from lmms_topoprune.pipeline import calibrate
from lmms_topoprune.plan import PruningPlan
from lmms_topoprune.repair.probes import SamplePasses
from lmms_topoprune.sweep.grid import Grid
from lmms_topoprune.sweep.runner import sweep

SAMPLES = 8
FEW = {"samples": SAMPLES, "k": "3", "calibration_batch": 8, "trials": 0}
ONCE = {"drawn": 1, "hashed": 1, "worded": SAMPLES}


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often samples were drawn, hashed and worded (one by one), and passed through the model."""
    counts: Counter[str] = Counter()

    def counted(
        owner: Any, function: str, what: str, when: Callable[..., bool] = lambda *a, **k: True
    ) -> None:
        original = getattr(owner, function)

        def count(*arguments: Any, **given: Any) -> Any:
            counts[what] += when(*arguments, **given)
            return original(*arguments, **given)

        monkeypatch.setattr(owner, function, count)

    counted(calibration_set, "load_samples", "drawn")
    counted(calibration_set, "fingerprint", "hashed")
    counted(Prompter, "_word", "worded")
    counted(calibrate, "collect_views", "passes for scores")
    counted(SamplePasses, "run", "passes for repairs", lambda *_, peek=False: not peek)
    return counts


@pytest.mark.parametrize(("repair", "more"), [("none", {}), ("linear", {"passes for repairs": 1})])
def test_a_run_of_a_wrapper(load, done, repair, more):
    model = load("topopruned_llava", sparsity=0.34, repair=repair, **FEW)
    assert len(model.plan.dropped) == 2
    assert done == {**ONCE, "passes for scores": 1, **more}


def test_a_default_run_with_repair_passes_once_a_round_of_trials(load, done):
    """The winner of the trials is repaired by what a round found, even if a later round found more."""
    model = load("topopruned_llava", sparsity=0.34, repair="linear", **FEW | {"trials": 16})
    rounds = [trial["by"] == "swap" for trial in model.plan.trials]
    assert model.plan.criterion == "zigzag_trials" and {*rounds} == {True, False}
    assert done["passes for repairs"] == model.planner.sums.passes == 1 + sum(map(ne, rounds, rounds[1:]))


def test_a_run_that_finds_its_plan_words_nothing(load, done):
    load("topopruned_llava", sparsity=0.34, **FEW)
    done.clear()
    assert load("topopruned_llava", sparsity=0.34, **FEW).partial_load.plan is not None
    assert +done == {"drawn": 1, "hashed": 1}


def test_the_plan_command(folder, done, tmp_path):
    given = (
        "--pretrained",
        str(folder),
        "--sparsity",
        "0.34",
        "--samples",
        str(SAMPLES),
        "--k",
        "3",
        "--trials",
        "0",
    )
    with pytest.raises(SystemExit) as end:
        main(["plan", *given, "--repair", "linear", "-o", str(tmp_path / "plan.json")])
    assert not end.value.code and PruningPlan.load(tmp_path / "plan.json").repair
    assert done == {**ONCE, "passes for scores": 1}


@pytest.fixture
def right_or_wrong(tasks: Path, tmp_path: Path) -> Path:
    """The task tiny_questions with scores of 0 or 1, as a comparison needs them."""
    folder = shutil.copytree(tasks, tmp_path / "tasks")
    hooks = folder / "hooks.py"
    hooks.write_text(hooks.read_text().replace("len(results[0])", "float(len(results[0]) % 2)"))
    return folder


def test_a_sweep_with_repair(folder: Path, right_or_wrong: Path, tmp_path: Path, done: Counter[str]) -> None:
    """Cells that drop different layers, and cells that drop the same, share one pass for all repairs."""
    session = Session.open(
        "dense_llava", f"pretrained={folder}", batch_size=4, device="cpu", tasks_folder=right_or_wrong
    )
    done.clear()
    criteria = ("last_n:repair=linear", "cosine:repair=linear", "block_influence:repair=linear", "last_n")
    grid = Grid(criteria, (0.17, 0.34), shared={"samples": SAMPLES})
    runs = sweep(session, grid, ["tiny_questions"], tmp_path / "sweep", limit=2)
    repaired = {run.plan.dropped for run in runs if run.plan.repair}
    assert len(repaired) > 2
    assert +done == {**ONCE, "passes for scores": 1, "passes for repairs": 1}
    assert session.sums.passes == 1


def test_a_default_sweep_with_repair(
    folder: Path, right_or_wrong: Path, tmp_path: Path, done: Counter[str]
) -> None:
    """Each plan's trials cost a pass, and what it found repairs the cell that is evaluated."""
    session = Session.open(
        "dense_llava", f"pretrained={folder}", batch_size=4, device="cpu", tasks_folder=right_or_wrong
    )
    done.clear()
    shared = {"samples": SAMPLES, "k": "3", "calibration_batch": 8}
    grid = Grid(("zigzag_trials:repair=linear:trials=2",), (0.17, 0.34), shared=shared)
    runs = sweep(session, grid, ["tiny_questions"], tmp_path / "sweep", limit=2)
    assert {len(run.plan.trials) for run in runs if run.plan.repair} == {2}
    assert +done == {**ONCE, "passes for scores": 1, "passes for repairs": 2}
