"""lmms-eval's own mme and gqa, offline on stand-in rows, with the registered pruned model."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import standins

from lmms_topoprune.results.reading import read_run

pytestmark = pytest.mark.slow

MODEL = "--model topopruned_llava --model_args sparsity=0.3,pretrained=embedded,samples=32"
COMMAND = f"{MODEL} --tasks mme,gqa --batch_size 8"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The results file of one run in a folder that holds the stand-ins."""
    folder = tmp_path_factory.mktemp("run")
    standins.write_mme(folder, images=20)
    standins.write_gqa(folder, questions=24)
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(folder / "hf"),
        "TOPOPRUNE_CACHE": str(folder / "cache"),
    }
    ran = subprocess.run(
        [sys.executable, "-m", "lmms_eval", *COMMAND.split(), "--output_path", "out", "--log_samples"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    (written,) = (folder / "out").rglob("*_results.json")
    found = json.loads(written.read_text())
    found["path"] = written
    found["samples"] = {
        task: [json.loads(line) for line in path.read_text().splitlines()]
        for task in ("mme", "gqa")
        for path in (folder / "out").rglob(f"*_samples_{task}.jsonl")
    }
    return found


def test_every_stand_in_is_answered_and_scored(results: dict) -> None:
    assert results["n-samples"]["mme"]["effective"] == 40
    assert results["n-samples"]["gqa"]["effective"] == 24
    for samples in results["samples"].values():
        assert all(sample["filtered_resps"].strip() for sample in samples)


def test_the_plan_lies_beside_the_results(results: dict) -> None:
    (plan,) = results["path"].parent.glob("*_plan.json")
    assert json.loads(plan.read_text())["hash"] == results["plan"]["hash"]


def test_the_scores_are_those_of_the_answers(results: dict) -> None:
    gqa = results["samples"]["gqa"]
    right = [sample["filtered_resps"].strip().lower() == sample["target"] for sample in gqa]
    assert results["results"]["gqa"]["exact_match,none"] == pytest.approx(sum(right) / len(right))
    mme = results["results"]["mme"]
    assert 0 <= mme["mme_perception_score,none"] <= 800
    assert 0 <= mme["mme_cognition_score,none"] <= 200


def test_compared_scores_are_those_that_lmms_eval_reports(results: dict) -> None:
    """MME's sum over categories of (acc + acc+) * 100, by another way; GQA's exact match."""
    run, reported = read_run(results["path"]), results["results"]
    gqa, mme = run.tasks["gqa"], run.tasks["mme"]
    assert gqa.metric == "exact_match" and len(gqa.units) == 24
    assert gqa.score == pytest.approx(reported["gqa"]["exact_match,none"])
    assert len(mme.units) == 20 and mme.chance == 0.375
    total = sum(reported["mme"][f"mme_{half}_score,none"] for half in ("perception", "cognition"))
    assert mme.score == pytest.approx(total / (200 * len(set(mme.strata))))
    assert run.cost["parameters"] > 1e6 and run.cost["latency_seconds"] > 0 and run.cost["memory_bytes"] > 0
    assert run.facts["torch version"]
