"""Scores of lmms-eval's own tasks, from what their own process_results leave."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import folders
import numpy as np
import pytest
import task_rows

from lmms_topoprune.comparison.side_by_side import compare
from lmms_topoprune.errors import InputError
from lmms_topoprune.report.tables import render
from lmms_topoprune.results.document_scores import anls, chosen_option, parsed_answer
from lmms_topoprune.results.reading import check_whole, read_run
from lmms_topoprune.sweep.run_folders import read_runs

LIST = Path(__file__).parents[2] / "research" / "scored-tasks.md"


@pytest.mark.parametrize("case", task_rows.CASES, ids=lambda case: case.task)
def test_a_task_of_lmms_eval_is_scored(case):
    found = task_rows.scored(case)
    if case.scores is None:
        assert not found.units and found.reported == 0.5 and "lmms-eval reports" in found.metric
    else:
        assert found.scores == pytest.approx(case.scores) and found.own_scale == case.own_scale


def test_the_list_in_the_notes_is_this_one():
    assert len(task_rows.CASES) >= 25
    assert task_rows.listing() in LIST.read_text(encoding="utf-8")


def test_mmmu_reads_open_answers_as_its_own_evaluation_does():
    from lmms_eval.tasks.mmmu.utils import evaluate_mmmu, parse_open_response

    right = ["12.5", "a large cat", "B", ["red", "blue"], "1,200"]
    said = ["it is 12.5", "The large dog.", "A large cat.", "12.50", "So the answer is blue", "1200", "b"]
    for answer in right:
        for text in said:
            row = {
                "id": "x",
                "question_type": "open",
                "answer": answer,
                "parsed_pred": [parse_open_response(text)],
            }
            judged = evaluate_mmmu([row])[0]["x"] == "Correct"
            assert parsed_answer(row) == judged, (answer, text)


def test_mmbench_hits_are_those_of_its_static_evaluation():
    from lmms_eval.tasks.mmbench.en_utils import mmbench_evaluator

    base = {**task_rows.MMBENCH, "D": "nan"}
    for text in ("B", "B.", "(B)", "blue", "It is blue", "A", "A. red", "red or blue", "C: green", "none"):
        theirs = mmbench_evaluator.prefetch_answer({**base, "prediction": text})
        if theirs:  # else a judge would be asked
            assert chosen_option({**base, "prediction": text}) == (theirs == "B"), text


def test_anls_is_lmms_evals():
    from lmms_eval.api.metrics import anls as theirs

    for right, said in (
        (["stop"], "stop"),
        (["stop sign", "sign"], "stop sing"),
        (["a b"], "xyz"),
        (["Ab"], " ab"),
    ):
        expected = theirs(right, [said])
        expected = expected["anls"] if isinstance(expected, dict) else expected
        assert anls({"answer": right, "pred_answer": said}) == pytest.approx(expected)


def filtered(scores: dict[str, list[float]]) -> list[dict]:
    """A document once for every filter, in blocks, as lmms-eval logs them."""
    return [folders.row(i, exact_match=s) for values in scores.values() for i, s in enumerate(values)]


def write_filters(folder, scores, plan):
    path = folders.write(folder, {"two": filtered(scores)}, plan)
    results = json.loads(path.read_text())
    results["configs"]["two"] = {
        "filter_list": [{"name": name} for name in scores],
        "metric_list": [{"metric": "exact_match", "aggregation": "mean"}],
    }
    results["results"]["two"] = {f"exact_match,{n}": float(np.mean(s)) for n, s in scores.items()}
    results["n-samples"]["two"] = {"original": 4, "effective": 4}
    path.write_text(json.dumps(results))
    return path


def test_every_filter_has_its_own_column(tmp_path):
    """shared/cases/06: a task with two filters logs every document twice."""
    strict, flexible = [0.0] * 4, [1.0, 1.0, 0.0, 1.0]
    write_filters(tmp_path / "a", {"strict": strict, "flexible": flexible}, folders.plan((), "dense"))
    write_filters(tmp_path / "b", {"strict": strict, "flexible": [1.0, 0, 0, 0]}, folders.plan())
    comparison = compare(read_runs([tmp_path]))
    assert comparison.tasks == {
        "two [strict]": "exact_match, filter strict",
        "two [flexible]": "exact_match, filter flexible",
    }
    dense, pruned = comparison.rows
    assert [dense.cells[t].score for t in comparison.tasks] == [0, 0.75]
    assert [pruned.cells[t].score for t in comparison.tasks] == [0, 0.25]
    only = compare(read_runs([tmp_path], metric="exact_match,flexible"))
    assert list(only.tasks) == ["two [flexible]"] and only.rows[0].overall.score == 0.75
    with pytest.raises(InputError, match="no filter 'loose'"):
        read_runs([tmp_path], metric="exact_match,loose")
    with pytest.raises(InputError, match="no metric 'bleu'; it has exact_match"):
        read_runs([tmp_path], metric="bleu")


def test_repeats_are_averaged_within_the_document(tmp_path):
    rows = [folders.row(i % 3, exact_match=s) for i, s in enumerate([1.0, 0.0, 1.0, 0.0, 0.0, 1.0])]
    path = folders.write(tmp_path, {"vqa": rows})
    results = json.loads(path.read_text())
    results["n-samples"]["vqa"]["effective"] = 3
    path.write_text(json.dumps(results))
    scores = read_run(path).tasks["vqa"]
    assert scores.units == ("0", "1", "2") and list(scores.scores) == [0.5, 0.0, 1.0]


def test_less_is_better_is_turned_and_said(tmp_path):
    def write(folder, values, plan):
        path = folders.write(folder, {"asr": [folders.row(i, wer=v) for i, v in enumerate(values)]}, plan)
        results = json.loads(path.read_text())
        results["higher_is_better"]["asr"]["wer"] = False
        path.write_text(json.dumps(results))
        return read_run(path)

    dense, pruned = write(tmp_path / "a", [0.1, 0.2, 0.0], None), write(tmp_path / "b", [0.5, 0.2, 0.2], None)
    assert dense.tasks["asr"].metric == "1 - wer" and dense.tasks["asr"].score == pytest.approx(0.9)
    assert pruned.tasks["asr"].score < dense.tasks["asr"].score
    open_ended = write(tmp_path / "c", [1.5, 0.2, 0.2], None).tasks["asr"]
    assert open_ended.metric == "-wer, less is better" and open_ended.own_scale


def test_a_task_without_scores_takes_no_other_with_it(tmp_path):
    """What lmms-eval reports stands without an interval, and the mean is that of the tasks with documents."""
    for name, plan, value in (("a", folders.plan((), "dense"), 0.8), ("b", folders.plan(), 0.44)):
        judged = [folders.row(i, rating={"text": "fine"}) for i in range(10)]
        path = folders.write(
            tmp_path / name, {"vqa": folders.exact([1.0] * 5 + [0.0] * 5), "judged": judged}, plan
        )
        results = json.loads(path.read_text())
        results["results"]["judged"] = {"rating,none": value}
        path.write_text(json.dumps(results))
        check_whole(path)
    comparison = compare(read_runs([tmp_path]))
    cell = comparison.rows[1].cells["judged"]
    assert (
        (cell.score, cell.retention) == pytest.approx((0.44, 0.55))
        and np.isnan(cell.retention_interval.low)
        and np.isnan(cell.p)
    )
    assert comparison.averaged == ("vqa",) and comparison.rows[0].overall.score == 0.5
    assert "judged has no interval" in " ".join(comparison.notes)
    text = render(comparison, "markdown")
    assert "| 44.0* |" in text and "*: as lmms-eval reports it" in text and "| 44.0 |" not in text
    lines = list(csv.DictReader(io.StringIO(render(comparison, "csv"))))
    assert [(line["task"], line["units"]) for line in lines[:3]] == [
        ("vqa", "10"),
        ("judged", "0"),
        ("overall", "10"),
    ]
    assert (
        lines[1]["metric"] == "rating as lmms-eval reports it, no documents" and lines[1]["score_low"] == ""
    )
    assert list(compare(read_runs([tmp_path], tasks=["vqa"])).tasks) == ["vqa"]


def test_captions_keep_their_own_scale(tmp_path):
    for name, plan, factor in (("a", folders.plan((), "dense"), 1.0), ("b", folders.plan(), 0.5)):
        rows = [folders.row(i, cider=factor * (0.8 + i % 5 / 2)) for i in range(20)]
        folders.write(tmp_path / name, {"cap": rows}, plan)
    comparison = compare(read_runs([tmp_path]))
    row = comparison.rows[1]
    assert comparison.own_scale == ("cap",) and row.overall.retention == pytest.approx(0.5)
    assert row.cells["cap"].score == pytest.approx(0.9) and row.cells["cap"].score_interval.high < 1.2


def test_samples_that_contradict_the_results_are_damage(tmp_path):
    path = folders.write(tmp_path, {"vqa": folders.exact([1.0, 1.0, 0.0, 1.0])})
    results = json.loads(path.read_text())
    results["configs"]["vqa"] = {"metric_list": [{"metric": "exact_match", "aggregation": "mean"}]}
    results["results"]["vqa"] = {"exact_match,none": 0.75}
    path.write_text(json.dumps(results))
    assert read_run(path).tasks["vqa"].score == 0.75
    samples = next(tmp_path.glob("*.jsonl"))
    samples.write_text(samples.read_text().replace("0.0", "1.0"))
    with pytest.raises(InputError, match=r"the mean of exact_match is 1 in the samples, 0.75 in the results"):
        read_run(path)


def test_pairs_that_contradict_the_results_are_damage(tmp_path):
    """MME's form: both questions of an image are one unit, and their mean is what lmms-eval reports."""
    path = folders.write(tmp_path, {"mme": folders.pairs([(1, 1), (1, 0)])})
    results = json.loads(path.read_text())
    results["configs"]["mme"] = {
        "metric_list": [{"metric": "mme_perception_score", "aggregation": "mean_score"}]
    }
    results["results"]["mme"] = {"mme_perception_score,none": 0.75}
    path.write_text(json.dumps(results))
    assert read_run(path).tasks["mme"].score == pytest.approx((1 + 0.25) / 2)
    samples = next(tmp_path.glob("*.jsonl"))
    samples.write_text(samples.read_text().replace('"score": 0', '"score": 1'))
    check_whole(path)
    for read in (read_run, lambda path: check_whole(path, agreeing=True)):
        with pytest.raises(InputError, match=r"is 1 in the samples, 0\.75 in the results"):
            read(path)


def test_an_image_without_a_right_caption_leaves_lmms_evals_own_number(tmp_path):
    rows = [
        folders.row(i, coco_CIDEr={"answer": answers, "pred": "a cup"})
        for i, answers in enumerate((["a cup"], []))
    ]
    scores = read_run(folders.write(tmp_path, {"cap": rows})).tasks["cap"]
    assert scores.units == () and scores.reported == 0.5


def test_clusters_are_read_from_the_field_that_the_task_names(tmp_path):
    rows = [folders.row(i, accuracy={"score": float(i % 2), "image_id": f"image {i // 2}"}) for i in range(6)]
    path = folders.write(tmp_path, {"vqa": rows})
    results = json.loads(path.read_text())
    results["configs"]["vqa"] = {"cluster_key": "image_id"}
    path.write_text(json.dumps(results))
    assert read_run(path).tasks["vqa"].clusters == tuple(f"image {i // 2}" for i in range(6))


def test_arrow_and_python_read_the_same(tmp_path, monkeypatch):
    from lmms_topoprune.results import sample_files as reader

    rows = [
        {**folders.row(i, acc={"score": i / 10, "image_id": f"ü{i // 2}"}, hit=i % 2 == 0), "target": f"Ä{i}"}
        for i in (3, 1, 2, 0)
    ]
    path = folders.write(tmp_path, {"vqa": rows})
    fast = reader.read_columns(path, "vqa")
    monkeypatch.setattr(reader, "_by_arrow", lambda *_: None)
    slow = reader.read_columns(path, "vqa")
    assert (fast.ids, fast.exam, fast.identity) == (slow.ids, slow.exam, slow.identity)
    assert set(fast.columns) == set(slow.columns) == {"acc", "hit"}
    assert np.array_equal(fast.columns["hit"], slow.columns["hit"])
    for name in ("score", "image_id"):
        ours, theirs = (reader.field(found.columns["acc"], name) for found in (fast, slow))
        assert list(ours) == list(theirs)


def test_a_metric_of_later_rows_is_seen(tmp_path):
    rows = [folders.row(i, exact_match=1.0) for i in range(100)] + [
        folders.row(100, exact_match=0.0, late=1.0)
    ]
    path = folders.write(tmp_path, {"vqa": rows})
    results = json.loads(path.read_text())
    results["higher_is_better"]["vqa"]["late"] = True
    path.write_text(json.dumps(results))
    assert read_run(path, metric="late").tasks["vqa"].units == ("100",)


def test_plain_rows_are_read_by_column(tmp_path, monkeypatch):
    """Objects a row are what made a comparison of many runs slow."""
    from lmms_topoprune.results import sample_files as reader

    def refuse(*_):
        raise AssertionError("read row by row")

    rows = [
        {**folders.row(i, exact_match=i % 2, acc={"score": 1.0}), "resps": [["x"]], "extra": None}
        for i in range(200)
    ]
    path = folders.write(tmp_path, {"vqa": rows})
    results = json.loads(path.read_text())
    for told in (results["results"]["vqa"], results["higher_is_better"]["vqa"]):
        for name in [name for name in told if name.partition(",")[0] in ("resps", "extra")]:
            del told[name]  # no metrics
    path.write_text(json.dumps(results))
    monkeypatch.setattr(reader, "_rows", refuse)
    scores = read_run(path).tasks["vqa"]
    assert scores.score == 0.5 and scores.units == read_run(path).tasks["vqa"].units
