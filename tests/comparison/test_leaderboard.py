from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import folders
import numpy as np
import pytest

from lmms_topoprune.comparison.side_by_side import compare
from lmms_topoprune.errors import InputError, OptionError
from lmms_topoprune.report.tables import render, save
from lmms_topoprune.results.reading import read_run
from lmms_topoprune.surgery.model_card import model_card
from lmms_topoprune.sweep.run_folders import read_runs

DENSE = [1.0] * 8 + [0.0] * 2
PRUNED = [1.0] * 5 + [0.0] * 5


@pytest.fixture
def two(tmp_path):
    folders.write(tmp_path / "a", {"vqa": folders.exact(DENSE)}, folders.plan((), "dense"), {"vqa": 0.2})
    folders.write(tmp_path / "b", {"vqa": folders.exact(PRUNED)}, folders.plan(), {"vqa": 0.2})
    return tmp_path


def test_leaderboard_numbers(two):
    comparison = compare(read_runs([two]))
    dense, pruned = comparison.rows
    assert (dense.label, pruned.label) == ("dense", "topology 20 %")
    cell = pruned.overall
    assert cell.score == pytest.approx(0.5)
    assert cell.retention == pytest.approx(0.5 / 0.8)
    assert cell.corrected == pytest.approx(0.3 / 0.6)
    assert cell.difference == pytest.approx(-0.3)
    assert cell.p == cell.p_holm == pytest.approx(0.25)
    assert cell.retention in cell.retention_interval
    assert dense.overall.retention == dense.overall.corrected == 1
    assert dense.overall.difference_interval.low == dense.overall.difference_interval.high == 0


def test_pairs_are_units(tmp_path):
    rows = folders.pairs([(1, 1), (1, 0), (0, 0), (1, 1)])
    run = read_run(folders.write(tmp_path, {"mme": rows}, folders.plan((), "dense")))
    scores = run.tasks["mme"]
    assert list(scores.scores) == [1, 0.25, 0, 1]
    assert scores.chance == 0.375


def test_categories_weigh_the_same(tmp_path):
    rows = folders.pairs([(1, 1)] * 3) + folders.pairs([(0, 0)], "count")
    rows = [{**row, "doc_id": i} for i, row in enumerate(rows)]
    run = read_run(folders.write(tmp_path, {"mme": rows}))
    assert run.tasks["mme"].score == pytest.approx(0.5)


def test_half_a_pair_is_left_out_and_three_questions_are_refused(tmp_path):
    rows = folders.pairs([(1, 1), (1, 0), (0, 0)])
    run = read_run(folders.write(tmp_path / "a", {"mme": rows[:-1]}))
    assert list(run.tasks["mme"].scores) == [1, 0.25]
    with pytest.raises(InputError, match="3 questions instead of 2"):
        read_run(folders.write(tmp_path / "b", {"mme": [*rows, {**rows[0], "doc_id": 9}]}))


def test_tasks_weigh_the_same(tmp_path):
    samples = {"long": folders.exact([1.0] * 90), "short": folders.exact([0.0] * 10)}
    folders.write(tmp_path, samples, folders.plan((), "dense"))
    assert compare(read_runs([tmp_path])).rows[0].overall.score == pytest.approx(0.5)


def test_documents_are_matched_by_id_not_by_place(two):
    runs = read_runs([two])
    order = np.random.default_rng(0).permutation(10)
    scores = runs[1].tasks["vqa"]
    moved = replace(scores, units=tuple(scores.units[i] for i in order), scores=scores.scores[order])
    shuffled = [runs[0], replace(runs[1], tasks={"vqa": moved})]
    assert compare(shuffled).rows[1].overall == compare(runs).rows[1].overall


def test_holm_over_the_runs(two):
    folders.write(two / "c", {"vqa": folders.exact(PRUNED)}, folders.plan((5,), "cosine"))
    comparison = compare(read_runs([two]), force=True)
    assert [row.overall.p_holm for row in comparison.rows[1:]] == pytest.approx([0.5, 0.5])


def test_another_reference(two):
    comparison = compare(read_runs([two]), reference="topology 20 %")
    assert comparison.rows[0].overall.difference == pytest.approx(0.3)
    with pytest.raises(OptionError, match=r"reference is 'topology'.*did you mean 'topology 20 %'"):
        compare(read_runs([two]), reference="topology")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"limit": 8}, r"limit \(None and 8\)"),
        ({"model_args": "pretrained=tiny,use_cache=False"}, "model_args use_cache"),
        ({"model_backend": "x.Y (simple)"}, r"prompt path \(chat and simple\)"),
        ({"gen_kwargs": {"do_sample": True}}, "gen_kwargs"),
    ],
)
def test_runs_that_differ_are_refused_by_name(two, change, named):
    folders.write(two / "b", {"vqa": folders.exact(PRUNED)}, folders.plan(), {"vqa": 0.2}, **change)
    with pytest.raises(InputError, match=named):
        compare(read_runs([two]))
    assert compare(read_runs([two]), force=True).notes


def test_other_prompts_documents_tasks_and_versions_are_refused(two):
    runs = read_runs([two])
    for fact in ("prompts of vqa", "documents of vqa", "version of vqa", "lmms-eval version", "weights"):
        other = replace(runs[1], facts={**runs[1].facts, fact: "another"})
        with pytest.raises(InputError, match=f"differ in {fact}"):
            compare([runs[0], other])
    with pytest.raises(InputError, match="tasks"):
        compare([runs[0], replace(runs[1], tasks={})])


def test_no_generation_settings_are_the_same_from_the_command_and_from_python(two):
    folders.write(two / "b", {"vqa": folders.exact(PRUNED)}, folders.plan(), {"vqa": 0.2}, gen_kwargs="")
    assert len(compare(read_runs([two])).rows) == 2


def test_another_limit_is_named_without_the_documents_it_leaves_out(two):
    folders.write(two / "b", {"vqa": folders.exact(PRUNED[:8])}, folders.plan(), {"vqa": 0.2}, limit=8)
    with pytest.raises(InputError) as refused:
        compare(read_runs([two]))
    assert "limit (None and 8)" in str(refused.value) and "documents of" not in str(refused.value)


def test_equal_weights_may_lie_elsewhere(two):
    elsewhere = {"model_args": "pretrained=/other/machine/tiny"}
    folders.write(two / "b", {"vqa": folders.exact(PRUNED)}, folders.plan(), {"vqa": 0.2}, **elsewhere)
    dense, moved = read_runs([two])
    assert len(compare([dense, moved]).rows) == 2
    for weights in ("another", None):  # others, or nobody knows
        other = replace(moved, facts={**moved.facts, "weights": weights})
        with pytest.raises(InputError, match="model_args pretrained"):
            compare([dense, other])


def test_pruning_options_may_differ(two):
    arguments = "pretrained=tiny,sparsity=0.2,criterion=topology,batch_size=8"
    folders.write(
        two / "b", {"vqa": folders.exact(PRUNED)}, folders.plan(), {"vqa": 0.2}, model_args=arguments
    )
    assert len(compare(read_runs([two])).rows) == 2


def test_runs_of_one_date_are_told_apart_by_their_folders(two):
    folders.write(two / "c", {"vqa": folders.exact(DENSE)}, folders.plan((), "dense"), {"vqa": 0.2})
    labels = [row.label for row in compare(read_runs([two])).rows]
    date = folders.DATE
    assert labels == [f"dense ({date}) a", f"dense ({date}) c", "topology 20 %"]


def test_a_pruned_run_without_its_plan_is_no_dense_run(two):
    folders.write(two / "c", {"vqa": folders.exact(PRUNED)}, model_args="pretrained=tiny,sparsity=0.2")
    with pytest.raises(InputError, match="its plan is not beside it"):
        read_runs([two])


def test_two_runs_in_one_folder_keep_their_own_plans(tmp_path):
    for date, dropped in (("20260101_1", ()), ("20260101_2", (3, 4)), ("20260101_3", (3, 4))):
        folders.write(tmp_path, {"vqa": folders.exact(PRUNED)}, folders.plan(dropped), date=date)
    labels = [run.label for run in read_runs([tmp_path])]
    assert labels == ["dense", "topology 20 % (20260101_2)", "topology 20 % (20260101_3)"]


def test_bad_input_is_one_sentence(two, tmp_path):
    results, samples = (next((two / "b").glob(f"*{end}")) for end in ("_results.json", ".jsonl"))
    with pytest.raises(InputError, match="does not exist"):
        read_run(tmp_path / "nowhere")
    whole = samples.read_text()
    samples.write_text(whole[:-20])
    with pytest.raises(InputError, match="cut short"):
        read_run(results)
    samples.unlink()
    with pytest.raises(InputError, match="--log_samples"):
        read_run(results)
    samples.write_text(whole)
    results.write_text(results.read_text()[:100])
    with pytest.raises(InputError, match="cut short"):
        read_run(results)
    results.write_text("{}")
    with pytest.raises(InputError, match="not a results file"):
        read_run(results)
    with pytest.raises(InputError, match="2 results files"):
        read_run(two)


def test_no_dense_run(two):
    with pytest.raises(InputError, match="no dense run"):
        compare(read_runs([two / "b"]))


def test_every_form_shows_the_same_leaderboard(two):
    comparison = compare(read_runs([two]))
    assert render(comparison, "markdown").count("| topology 20 %") == 1
    rows = list(csv.DictReader(io.StringIO(render(comparison, "csv"))))
    assert [(r["model"], r["task"]) for r in rows][2:] == [
        ("topology 20 %", "vqa"),
        ("topology 20 %", "overall"),
    ]
    assert float(rows[3]["corrected"]) == pytest.approx(0.5)
    data = json.loads(render(comparison, "json"))
    assert data["rows"][1]["cells"]["vqa"]["score"] == 0.5
    page = render(comparison, "html")
    assert "topology 20 %" in page and "http:" not in page and "https:" not in page
    with pytest.raises(OptionError, match="format"):
        render(comparison, "pdf")


def test_save_by_suffix_and_unwritable(two, tmp_path):
    comparison = compare(read_runs([two]))
    save(comparison, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text().startswith("model,")
    with pytest.raises(OptionError, match="suffix"):
        save(comparison, tmp_path / "out.png")
    with pytest.raises(InputError, match="cannot be written"):
        save(comparison, tmp_path / "out.csv" / "below.md")


STAGES = {
    "load": {"seconds": 50.0, "peak_bytes": 9e9},
    "calibrate": {"seconds": 3.0, "peak_bytes": 8e9},
    "score": {"seconds": 1.5, "peak_bytes": 8e9},
    "generate": {"seconds": 5.0, "peak_bytes": 2e9},
}
SIZE = {"parameters": 7_000_000, "weight_bytes": 28_000_000, "held_bytes": 4_000_000}


def record(**more):
    return {"dtype": "float32", "size": SIZE, "answers": {"total": 10, "failed": 0}, **more}


def test_costs_stand_beside_quality(two):
    plan = folders.plan(stages=STAGES)
    folders.write(two / "b", {"vqa": folders.exact(PRUNED)}, plan, {"vqa": 0.2}, record=record())
    row = compare(read_runs([two])).rows[1]
    assert row.cost == {
        "tokens_per_second": 40.0,
        "generation_seconds": 5.0,
        "latency_seconds": 0.5,
        "calibration_seconds": 4.5,
        "parameters": 7e6,
        "weight_bytes": 28e6,
        "memory_bytes": 2e9 - 4e6,  # what a sweep keeps of deleted layers is not the pruned model's
    }
    comparison = compare(read_runs([two]))
    line = next(line for line in render(comparison, "markdown").splitlines() if "topology" in line)
    assert "| 500 | 40.0 | 7.00 | 1996 | 4.50 | " in line
    cells = list(csv.DictReader(io.StringIO(render(comparison, "csv"))))[-1]
    assert (cells["parameters"], cells["latency_seconds"]) == ("7000000.0", "0.5")


def test_a_plain_run_has_the_costs_that_lmms_eval_tells(two):
    assert read_runs([two / "a"])[0].cost["latency_seconds"] == pytest.approx(1.0)


def test_the_chance_level_is_named(two):
    assert "vqa (exact_match, 10 units, chance 20.0)" in render(compare(read_runs([two])), "markdown")


def test_another_class_of_model_or_metric_is_refused(two):
    chance, answers = {"vqa": 0.2}, folders.exact(PRUNED)
    folders.write(two / "b", {"vqa": answers}, folders.plan(), chance, model="cosine_pruned_llava")
    assert len(compare(read_runs([two])).rows) == 2
    folders.write(two / "b", {"vqa": answers}, folders.plan(), chance, model="topopruned_qwen2_vl")
    with pytest.raises(InputError, match=r"model class \(llava_hf and qwen2_vl\)"):
        compare(read_runs([two]))
    other = [folders.row(i, accuracy=s) for i, s in enumerate(PRUNED)]
    folders.write(two / "b", {"vqa": other}, folders.plan(), chance)
    with pytest.raises(InputError, match="metric of vqa"):
        compare(read_runs([two]))
    with pytest.raises(InputError, match="scored differently in task 'vqa'"):
        compare(read_runs([two]), force=True)


def test_versions_are_those_that_answered(two):
    chance, answers = {"vqa": 0.2}, folders.exact(PRUNED)
    plan = folders.plan(versions={"torch": "2.6"})
    for name, dropped in (("a", ()), ("b", (3, 4))):
        versions = {"torch": "2.7" if name == "a" else "2.6"}
        own = folders.plan(dropped, "dense" if not dropped else "topology", versions=plan.versions)
        folders.write(two / name, {"vqa": answers}, own, chance, record=record(versions=versions))
    with pytest.raises(InputError, match=r"torch version \(2.7 and 2.6\)"):
        compare(read_runs([two]))


def test_what_makes_costs_incomparable_and_answers_wrong_is_said(two):
    chance, answers = {"vqa": 0.2}, folders.exact(PRUNED)
    made = record(device="cuda", answers={"total": 10, "failed": 2})
    folders.write(two / "b", {"vqa": answers}, folders.plan(), chance, record=made)
    folders.write(
        two / "a",
        {"vqa": folders.exact(DENSE)},
        folders.plan((), "dense"),
        chance,
        record=record(device="cpu"),
    )
    notes = " ".join(compare(read_runs([two])).notes)
    assert "device is cpu and cuda" in notes and "2 failed answers of topology 20 % count as wrong" in notes


def test_common_documents_keep_the_weights_of_categories(tmp_path):
    """Forced to compare runs of other limits, categories weigh the same in what is left."""
    color, count = folders.pairs([(1, 1)] * 3), folders.pairs([(0, 0)] * 3, "count")
    rows = [{**row, "doc_id": i} for i, row in enumerate(color + count)]
    folders.write(tmp_path / "a", {"mme": rows}, folders.plan((), "dense"))
    folders.write(tmp_path / "b", {"mme": rows[:-4]}, folders.plan(), limit=8)
    comparison = compare(read_runs([tmp_path]), force=True)
    assert [row.overall.score for row in comparison.rows] == pytest.approx([0.5, 0.5])


def test_too_few_rounds(two):
    with pytest.raises(OptionError, match="rounds is 5"):
        compare(read_runs([two]), rounds=5)


def test_a_new_column_is_one_entry_that_every_form_follows(two, monkeypatch):
    from lmms_topoprune.cli.table import cost_table
    from lmms_topoprune.comparison import columns

    added = ("weight_bytes", "weights (MB)", 1e-6, "bytes of the weights")
    monkeypatch.setattr(columns, "COSTS", (*columns.COSTS, added))
    folders.write(two / "b", {"vqa": folders.exact(PRUNED)}, folders.plan(), {"vqa": 0.2}, record=record())
    comparison = compare(read_runs([two]))
    assert "weights (MB)" in render(comparison, "markdown") and "| 28.0 |" in render(comparison, "markdown")
    assert list(csv.DictReader(io.StringIO(render(comparison, "csv"))))[-1]["weight_bytes"] == "28000000.0"
    assert json.loads(render(comparison, "json"))["rows"][1]["values"]["weight_bytes"] == 28e6
    assert "weights (<wbr>" in render(comparison, "html") or "weights (MB)" in render(comparison, "html")
    assert [str(column.header) for column in cost_table(comparison).columns][-1] == "weights (MB)"


def test_reading_results_runs_no_code_that_a_plan_names(tmp_path):
    """Anybody may have made them; the options of a criterion elsewhere are told by the common defaults."""
    code = tmp_path / "theirs.py"
    code.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    for number, turned in enumerate(("", "reverse:")):
        made = folders.plan(criterion=f"{turned}{code}:score", parameters={"k": "7", "selection": "rank"})
        folders.write(tmp_path / f"{number}", {"vqa": folders.exact(PRUNED)}, made)
    folders.write(tmp_path / "dense", {"vqa": folders.exact(DENSE)}, folders.plan((), "dense"))
    rows = compare(read_runs([tmp_path])).rows
    assert {row.criterion for row in rows} == {"dense", f"{code}:score k=7", f"reverse:{code}:score k=7"}
    card = model_card(made, model_class="X", parameters=1)
    assert "theirs.py:score" in card and "## Method" not in card
    assert not (tmp_path / "ran").exists()


def test_a_task_called_overall_is_a_task(tmp_path):
    samples = {"overall": folders.exact([1.0] * 10), "vqa": folders.exact([0.0] * 10)}
    folders.write(tmp_path, samples, folders.plan((), "dense"))
    comparison = compare(read_runs([tmp_path]))
    assert comparison.rows[0].cells["overall"].score == 1 and comparison.rows[0].overall.score == 0.5
    names = [row["task"] for row in csv.DictReader(io.StringIO(render(comparison, "csv")))]
    assert names == ["overall", "vqa", "mean of tasks"]
