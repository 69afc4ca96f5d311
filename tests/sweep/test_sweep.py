"""The sweep: every cell once, whatever happens in between."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import folders
import numpy as np
import pytest

from lmms_topoprune._util.disk_cache import Cache, listing
from lmms_topoprune.cli.sweep import finish
from lmms_topoprune.comparison.columns import columns, dropped
from lmms_topoprune.comparison.side_by_side import compare
from lmms_topoprune.errors import InputError, OptionError, unknown
from lmms_topoprune.pipeline import Planner, make_plan
from lmms_topoprune.plan import format_layers
from lmms_topoprune.repair.cut_sums import KnownSums
from lmms_topoprune.results.reading import plan_label
from lmms_topoprune.sweep.folder import SweepFolder, read_sweep
from lmms_topoprune.sweep.grid import Grid, GridPoint, parse_variant
from lmms_topoprune.sweep.run_folders import distinct, distinct_labels, read_runs
from lmms_topoprune.sweep.runner import sweep
from lmms_topoprune.topology import jaccard

CHEAP = Grid(("last_n", "uniform"), (0.34, 0.5))


class Evaluator:
    """Stands in for lmms-eval: the answers depend on the dropped layers alone."""

    name, model_args, batch_size, calibrations = "dense_llava", "pretrained=tiny", 4, None

    def __init__(self, model: Any, processor: Any, stop_after: int = 10**6, kill: bool = False) -> None:
        self.model, self.processor, self.sums = model, processor, KnownSums()
        self.evaluated: list[str] = []
        self.stop_after, self.kill = stop_after, kill

    def check_tasks(self, tasks: Any) -> None:
        if list(tasks) != ["vqa"]:
            raise unknown("task", tasks[0], ["vqa"])

    def asked_about(self, source: str, tasks: Any) -> tuple[str, ...]:
        return tuple(tasks) if "evaluated" in source else ()

    def expect(self, plans: Any) -> None: ...

    def evaluate(self, plan, tasks, output, *, model, model_args, limit=None, progress=None) -> Path:
        scores = [float((i * 7 + len(plan.dropped)) % 5 > len(plan.dropped)) for i in range(20)]
        path = folders.write(output / "tiny", {"vqa": folders.exact(scores)}, plan, model=model)
        if len(self.evaluated) >= self.stop_after:
            path.write_text(path.read_text()[:50])
            if self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise KeyboardInterrupt
        self.evaluated.append(format_layers(plan.dropped))
        return path


@pytest.fixture
def evaluator(tiny_llava, embedded_processor):
    return lambda **options: Evaluator(tiny_llava(layers=6), embedded_processor, **options)


def test_every_cell_has_a_run_and_equal_layers_are_evaluated_once(evaluator, tmp_path):
    grid = Grid(("last_n", "uniform", "reverse:uniform"), (0.34, 0.5), seeds=(0, 1))
    once = evaluator()
    runs = sweep(once, grid, ["vqa"], tmp_path)
    assert len(runs) == 1 + 3 * 2 * 2
    assert sorted(once.evaluated) == sorted({run.dropped for run in runs})
    assert len(read_sweep(tmp_path)) == len(runs)
    labels = [row.label for row in compare(read_runs([tmp_path])).rows]
    assert labels[0] == "dense" and len(set(labels)) == len(labels)


def test_an_interrupted_sweep_repeats_nothing(evaluator, tmp_path):
    first, second, third = evaluator(stop_after=2), evaluator(), evaluator()
    with pytest.raises(KeyboardInterrupt):
        sweep(first, CHEAP, ["vqa"], tmp_path)
    whole = sweep(second, CHEAP, ["vqa"], tmp_path)
    assert len(first.evaluated) == 2 and not set(first.evaluated) & set(second.evaluated)
    assert {run.dropped for run in whole} == {*first.evaluated, *second.evaluated}
    sweep(third, CHEAP, ["vqa"], tmp_path)
    assert third.evaluated == []


@pytest.mark.slow
def test_kill_minus_nine_in_the_middle_of_a_write(evaluator, tmp_path, tiny_llava, embedded_processor):
    tiny_llava(layers=6).save_pretrained(tmp_path / "model")
    script = f"""
import sys
sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parents[1] / "helpers")!r}]
from transformers import LlavaForConditionalGeneration
from test_sweep import CHEAP, Evaluator, sweep
model = LlavaForConditionalGeneration.from_pretrained({str(tmp_path / "model")!r})
sweep(Evaluator(model, None, stop_after=2, kill=True), CHEAP, ["vqa"], {str(tmp_path / "sweep")!r})
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    finished = {path.name for path in (tmp_path / "sweep" / "layers").iterdir() if path.name[0] != "."}
    assert len(finished) == 2
    rest = evaluator()
    runs = sweep(rest, CHEAP, ["vqa"], tmp_path / "sweep")
    assert not finished & set(rest.evaluated)
    assert {run.dropped for run in runs} == finished | set(rest.evaluated)


def test_a_finished_sweep_can_grow(evaluator, tmp_path):
    sweep(evaluator(), Grid(("last_n",), (0.34,)), ["vqa"], tmp_path)
    more = evaluator()
    runs = sweep(more, Grid(("last_n",), (0.34, 0.5)), ["vqa"], tmp_path)
    assert len(more.evaluated) == 1 and len(runs) == 3


def test_the_table_holds_what_earlier_commands_evaluated(evaluator, tmp_path, capsys):
    sweep(evaluator(), CHEAP, ["vqa"], tmp_path)
    sweep(evaluator(), Grid(("last_n",), (0.17,)), ["vqa"], tmp_path)
    assert finish([tmp_path], True) == {}
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((tmp_path / "comparison.json").read_text())
    labels = {row["label"] for row in found["rows"]}
    assert labels == {"dense", "last_n 17 %", *(f"{name} {n} %" for name in CHEAP.criteria for n in (34, 50))}


def test_another_sweep_in_the_same_folder_is_refused(evaluator, tmp_path):
    sweep(evaluator(), CHEAP, ["vqa"], tmp_path)
    with pytest.raises(InputError, match="holds a sweep with limit None"):
        sweep(evaluator(), CHEAP, ["vqa"], tmp_path, limit=5)


def test_a_sweep_without_a_finished_cell_gives_way(evaluator, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        sweep(evaluator(stop_after=0), Grid(("random",), (0.34,), shared={"samples": 8}), ["vqa"], tmp_path)
    sweep(evaluator(), CHEAP, ["vqa"], tmp_path, limit=5)
    assert json.loads((tmp_path / "sweep.json").read_text())["limit"] == 5
    assert not list((tmp_path / "plans").glob("random*"))  # made with other options


@pytest.mark.parametrize("limit", [-3, 0, 2.5, float("nan"), float("inf")])
def test_a_limit_that_is_none_is_refused(limit, evaluator, tmp_path):
    with pytest.raises(OptionError, match=r"limit is .*; allowed: whole numbers from 1, a share"):
        sweep(evaluator(), CHEAP, ["vqa"], tmp_path / "out", limit=limit)
    assert not (tmp_path / "out").exists()


def test_mistakes_are_found_before_anything_is_written(evaluator, tmp_path):
    with pytest.raises(OptionError, match="task is 'vqb'"):
        sweep(evaluator(), CHEAP, ["vqb"], tmp_path / "out")
    with pytest.raises(OptionError, match="leave 4 to drop"):
        sweep(evaluator(), Grid(("last_n",), (0.9,)), ["vqa"], tmp_path / "out")
    with pytest.raises(
        OptionError, match=r"0\.05, which drops 0 of 6 layers; allowed: sparsity above 0\.0833"
    ):
        sweep(evaluator(), Grid(("last_n",), (0.34, 0.05)), ["vqa"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        sweep(evaluator(), CHEAP, ["vqa"], tmp_path / "file" / "out")


def test_no_layers_are_chosen_by_what_is_evaluated_unless_forced(evaluator, tmp_path):
    lines = tmp_path / "evaluated.jsonl"
    lines.write_text("\n".join(json.dumps({"instruction": f"Why {i}?"}) for i in range(8)))
    shared = {"calibration": str(lines), "samples": 8}
    with pytest.raises(OptionError, match="which task 'vqa' is evaluated on"):
        sweep(evaluator(), Grid(("cosine",), (0.34,), shared=shared), ["vqa"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    sweep(evaluator(), Grid(("last_n",), (0.34,), shared=shared), ["vqa"], tmp_path / "other")
    forced = Grid(("cosine",), (0.34,), shared={**shared, "calibration_forced": True})
    for _ in range(2):  # made, and found on the disk
        runs = sweep(evaluator(), forced, ["vqa"], tmp_path / "out")
        (plan,) = (run.plan for run in runs if run.plan.criterion == "cosine")
        assert plan.calibration["evaluated"] == ["vqa"]


def test_the_cache_says_whose_scores_a_sweep_keeps(evaluator, tmp_path, monkeypatch):
    monkeypatch.setenv("TOPOPRUNE_CACHE", str(tmp_path / "cache"))
    grid = Grid(("cosine",), (0.34,), shared={"samples": 8})
    sweep(evaluator(), grid, ["vqa"], tmp_path / "out")
    (entry,) = listing(Cache.default())
    assert (entry.kind, entry.criterion, entry.model) == ("scores", "cosine", "pretrained=tiny")


def test_one_pass_serves_all_criteria_and_plans_equal_single_ones(tiny_llava, embedded_processor):
    model = tiny_llava(layers=6)
    shared = {"samples": 24}
    cells = [
        GridPoint(name, s)
        for name in ("topology", "cosine", "block_influence", "gardinazzi")
        for s in (0.2, 0.4)
    ]
    planner = Planner("tiny", model, embedded_processor)
    plans = planner.plans([cell.options(shared) for cell in cells])
    assert planner.passes == 1
    for cell, plan in zip(cells, plans, strict=True):
        alone = make_plan(
            model, embedded_processor, cell.options(shared), name="tiny", progress=False, cache=_no_cache()
        )
        assert (plan.dropped, plan.hash) == (alone.dropped, alone.hash), cell.name
    again = Planner("tiny", model, embedded_processor)
    again.plans([cell.options(shared) for cell in cells])
    assert again.passes == 0


def test_similarities_are_kept_for_the_report(evaluator, tmp_path):
    sweep(evaluator(), Grid(("topology", "last_n"), (0.34,), shared={"samples": 16}), ["vqa"], tmp_path)
    found = SweepFolder(tmp_path).shapes()
    assert set(found) == {"topology"}
    barcode, dimension = found["topology"].barcodes[5]
    assert (barcode.states, dimension) == (7, 1)
    assert np.allclose(found["topology"].similarity, jaccard(barcode, 1))
    (tmp_path / "similarity" / "last_n-0.34-seed0.json").write_text("{")
    with pytest.raises(InputError, match="cut short"):
        SweepFolder(tmp_path).shapes()


def _no_cache():
    from lmms_topoprune._util.disk_cache import Cache

    return Cache(None)


def test_grid_refuses_what_cannot_be_swept():
    with pytest.raises(OptionError, match="criterion is 'dense'"):
        Grid(("dense",), (0.3,))
    with pytest.raises(OptionError, match="sparsity is 0"):
        Grid(("cosine",), (0,))
    with pytest.raises(OptionError, match="seeds is empty"):
        Grid(("cosine",), (0.3,), ())


def test_settings_are_readable(evaluator, tmp_path):
    sweep(evaluator(), CHEAP, ["vqa"], tmp_path)
    settings = json.loads((tmp_path / "sweep.json").read_text())
    assert settings["tasks"] == ["vqa"] and settings["schema"] == "topoprune-sweep/1"


ASKED = (
    *(
        "gardinazzi:selection=threshold",
        "gardinazzi",
        "topology:selection=block",
        "topology",
        "topology:k=3+6",
    ),
    *("cosine", "angular", "block_influence", "relative_magnitude", "taylor", "greedy", "uniform", "last_n"),
    *("reverse:cosine", "reverse", "random", "static", "shuffled"),
)


def test_every_criterion_and_variant_can_be_asked_for_in_one_sweep(evaluator, tmp_path):
    grid = Grid(ASKED, (0.34,), shared={"samples": 16})
    runs = sweep(evaluator(), grid, ["vqa"], tmp_path)
    plans = {re.sub(r" [\d.]+ %$", "", run.label): run.plan for run in runs}
    assert plans.pop("dense").dropped == ()
    assert set(plans) == {name.replace(":selection", " selection").replace(":k", " k") for name in ASKED}
    counts = {name: len(plan.dropped) for name, plan in plans.items() if "threshold" not in name}
    assert set(counts.values()) == {2}


def test_the_table_says_how_many_layers_a_threshold_dropped(evaluator, tmp_path):
    """Whatever sparsities are asked for: it finds the number by itself, and there is one cell a seed."""
    grid = Grid(
        ("gardinazzi:selection=threshold:eps=0.9:k=2:protect_first=1",),
        (0.2, 0.34),
        (0, 1),
        {"dimension": 0, "samples": 16},
    )
    assert [cell.sparsity for cell in grid.points()] == [0, 0]
    one = replace(grid, seeds=(0,))  # seeds that drop different layers share a row, which names a range
    comparison = compare(distinct_labels(sweep(evaluator(), one, ["vqa"], tmp_path)))
    row = comparison.rows[1]
    plan = next(run.plan for run in read_sweep(tmp_path) if run.dropped == row.dropped)
    asked = "gardinazzi k=2 dimension=0 selection=threshold protect_first=1"
    assert row.label.startswith(f"{asked} {100 * plan.sparsity:.3g} %")
    assert f"{len(plan.dropped)}: {row.dropped}" in [column.text(row) for column in columns(comparison)]
    comparison = compare(distinct_labels(sweep(evaluator(), grid, ["vqa"], tmp_path)))
    (row,) = comparison.rows[1:]
    plans = [run.plan for run in read_sweep(tmp_path) if run.plan.dropped]
    assert len(row.runs) == len(plans) == 2
    assert set(row.dropped.split(" / ")) == {format_layers(plan.dropped) for plan in plans}
    counts = sorted({len(plan.dropped) for plan in plans})
    text = f"{' to '.join(map(str, counts))}: {row.dropped}"
    assert text in [column.text(row) for column in columns(comparison)]


@pytest.mark.parametrize(
    ("told", "text"),
    [
        ("none", "none"),
        ("3-5", "3: 3-5"),
        ("3-5 / 2+4-5", "3: 3-5 / 2+4-5"),
        ("3-5 / 2 / none", "0 to 3: 3-5 / 2 / none"),
    ],
)
def test_a_row_of_several_seeds_tells_from_how_many_layers_to_how_many(told, text):
    assert dropped(SimpleNamespace(dropped=told)) == text


@pytest.mark.parametrize("name", ["angular", "gardinazzi"])  # before and after "dense"
def test_a_threshold_that_drops_nothing_is_the_dense_model(name, evaluator, tmp_path):
    never = f"{name}:selection=threshold:protect_first=3:protect_last=2:eps=1"
    grid = Grid((never, "last_n"), (0.34,), shared={"samples": 16})
    found = sweep(evaluator(), grid, ["vqa"], tmp_path)
    assert [run.dropped for run in found[:2]] == ["none", "none"]
    for runs in (distinct(found), read_runs([tmp_path])):
        assert [run.label for run in runs] == ["dense", "last_n 34 %"]
        assert runs[0].plan.criterion == "dense"


def test_tables_tell_another_token(evaluator, tmp_path):
    shared = {"samples": 16, "k": "2"}
    grid = Grid(("cosine", "cosine:token=mean", "block_influence:token=mean"), (0.34,), shared=shared)
    _, *runs = sweep(evaluator(), grid, ["vqa"], tmp_path)
    labels = {"cosine 34 %", "cosine token=mean 34 %", "block_influence 34 %"}  # that one reads no token
    assert {plan_label(run.plan) for run in runs} == labels


def test_a_sweep_lists_a_criterion_without_a_seed_once(evaluator, tmp_path):
    grid = Grid(("last_n", "uniform"), (0.34,), seeds=(0, 1))
    runs = distinct(sweep(evaluator(), grid, ["vqa"], tmp_path))
    assert [run.label for run in runs] == ["dense", "last_n 34 %", "uniform 34 %"]
    assert [run.label for run in read_runs([tmp_path])] == [run.label for run in runs]


def test_an_option_that_is_none_is_refused():
    with pytest.raises(OptionError, match=r"option is 'sample'; allowed: .*did you mean 'samples'"):
        Grid(("cosine",), (0.3,), shared={"sample": 16})


def test_a_variant_is_a_criterion_with_options():
    assert parse_variant("reverse:topology:selection=block:eps=0.5:samples=64") == (
        "reverse:topology",
        {"selection": "block", "eps": 0.5, "samples": 64},
    )
    assert parse_variant("cosine:calibration=task:mme:test") == ("cosine", {"calibration": "task:mme:test"})
    assert GridPoint("topology:k=5+10", 0.3, 2).name == "topology_k=5+10-0.3-seed2"
    shared = {"k": "7", "samples": 64}
    assert (
        GridPoint("topology:k=9", 0.3).options(shared).k == "9"
        and GridPoint("topology", 0.3).options(shared).k == "7"
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("topology:selction=block", "option of a criterion is 'selction'; .* did you mean 'selection'"),
        ("topology:sparsity=0.1", "option of a criterion is 'sparsity'"),
        ("topology:eps=x", "eps is 'x'; allowed: a number"),
        ("topology:protect_massive=maybe", "protect_massive is 'maybe'; allowed: True, False"),
        ("topology:selection=blok", "did you mean 'block'"),
        ("topolgy:k=5", "did you mean 'topology'"),
        ("reverse:", "criterion is 'reverse:'"),
    ],
)
def test_a_mistaken_variant_is_refused(text, words):
    with pytest.raises(OptionError, match=words):
        Grid((text,), (0.3,))


@pytest.mark.parametrize(
    ("parameters", "label"),
    [
        ({"sparsity": 0.3, "selection": "path", "k": "5", "version": 1}, "topology 30 %"),
        ({"sparsity": 0.3, "selection": "block", "k": "5+10"}, "topology selection=block k=5+10 30 %"),
        (
            {"sparsity": 0.0, "selection": "threshold", "eps": 0.8},
            "topology selection=threshold eps=0.8 20 %",
        ),
    ],
)
def test_a_label_names_what_differs_from_the_defaults(parameters, label):
    assert plan_label(folders.plan((3, 4), parameters=parameters)) == label
    assert plan_label(folders.plan((3, 4), "unknown", parameters=parameters)).startswith("unknown ")
    assert plan_label(folders.plan(())) == "dense"
