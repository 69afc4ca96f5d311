"""The demo from end to end, in lmms-eval itself, on a tiny model."""

from __future__ import annotations

import json

import pytest

from lmms_topoprune.results.reading import read_run, read_samples

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return tmp_path_factory.mktemp("demo") / "out"


@pytest.fixture(scope="module")
def runs():
    """What the first run gave; a list, since `topoprune` lives for one test."""
    return []


@pytest.fixture
def first(runs, topoprune, model_folder, output):
    """Exit code, output and errors of the demo's first run, for whichever test needs it first."""
    if not runs:
        runs.append(demo(topoprune, model_folder, output, "--json"))
    return runs[0]


def demo(topoprune, model_folder, output, *more):
    options = ("--limit", 4, "--samples", 16, "--criteria", "topology,cosine,block_influence", "-o", output)
    options = ("--pretrained", model_folder, "--batch-size", 4, "--sparsity", 0.3, *options, *more)
    return topoprune("demo", *options)


def test_demo(first, output):
    code, out, err = first
    assert code == 0, err
    table = json.loads(out)
    labels = {row["label"] for row in table["rows"]}
    assert labels == {"dense", "topology 30 %", "cosine 30 %", "block_influence 30 %"}
    assert set(table["tasks"]) == {"topoprune_yesno", "topoprune_vqa", "topoprune_choice"}
    assert all(row["dropped"].count("-") + row["dropped"].count("+") == 1 for row in table["rows"][1:])
    dense, *pruned = (row["cost"] for row in table["rows"])
    assert all(cost["parameters"] < dense["parameters"] for cost in pruned)
    assert all(cost["memory_bytes"] > 0 and cost["latency_seconds"] > 0 for cost in (dense, *pruned))
    assert "lmms_eval" not in err and "Traceback" not in err
    assert "evaluated dense" in err
    assert (output / "comparison.md").exists() and (output / "lmms-eval.log").stat().st_size > 0


@pytest.mark.usefixtures("first")
def test_demo_again_evaluates_nothing(topoprune, model_folder, output):
    code, out, err = demo(topoprune, model_folder, output)
    assert code == 0 and "already evaluated" in err and "evaluated dense" not in err
    assert "size" in out and "4 runs on 3 tasks" in out  # the verdict
    assert (output / "report.html").stat().st_size > 10_000 and str(output / "plans") in out


@pytest.mark.usefixtures("first")
def test_a_cell_equals_the_command_it_names(model_folder, output):
    """The same layers through lmms-eval's own path give the same answers to every question."""
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    from lmms_topoprune._util.packaged import shared_path

    plan = json.loads((output / "plans" / "cosine-0.3-seed0.json").read_text())
    layers = "+".join(map(str, plan["dropped"]))
    place = next(
        p for p in (output / "layers").iterdir() if read_run(p).plan.dropped == tuple(plan["dropped"])
    )
    ours = read_run(place)
    theirs = simple_evaluate(
        model="topopruned_llava",
        model_args=f"pretrained={model_folder},layers={layers}",
        tasks=["topoprune_vqa"],
        task_manager=TaskManager("ERROR", include_path=str(shared_path("tasks")), include_defaults=False),
        batch_size=4,
        limit=4,
    )
    expected = {s["doc_id"]: s["filtered_resps"][0] for s in theirs["samples"]["topoprune_vqa"]}
    found = {row["doc_id"]: row["filtered_resps"] for row in read_samples(ours.path, "topoprune_vqa")}
    assert found == expected
