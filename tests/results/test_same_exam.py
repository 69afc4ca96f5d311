"""Two runs that did not answer the same exam are refused, and the first difference is named."""

from __future__ import annotations

import folders
import pytest

from lmms_topoprune.comparison.regression import read_baseline, regress, save_baseline
from lmms_topoprune.comparison.side_by_side import compare
from lmms_topoprune.errors import InputError
from lmms_topoprune.results.reading import read_run
from lmms_topoprune.sweep.run_folders import read_runs


def rows(scores=(1.0, 0.0, 1.0), **changes):
    """lmms-eval 0.7.3 hashes every document of the embedded tasks to the same constant."""
    found = [
        {
            **folders.row(i, exact_match=s),
            "doc_hash": "constant",
            "target": f"yes {i}",
            "media_digest": f"m{i}",
        }
        for i, s in enumerate(scores)
    ]
    for name, value in changes.items():
        found[1][name] = value
    return found


def write(tmp_path, **changes):
    folders.write(tmp_path / "a", {"vqa": rows()}, folders.plan((), "dense"))
    return folders.write(tmp_path / "b", {"vqa": rows((0.0, 1.0, 0.0), **changes)}, folders.plan())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"target": "no"}, r"right answers of vqa \(target of document 1 is 'yes 1' and 'no'\)"),
        ({"input": "another"}, r"prompts of vqa \(prompt of document 1 is 'question 1' and 'another'\)"),
        ({"media_digest": "other"}, r"images of vqa \(images of document 1 is 'm1' and 'other'\)"),
        ({"doc_id": 7}, r"documents of vqa \(document 1 is in only one of them\)"),
    ],
)
def test_another_exam_is_refused(tmp_path, change, named):
    write(tmp_path, **change)
    with pytest.raises(InputError, match=named):
        compare(read_runs([tmp_path]))
    assert compare(read_runs([tmp_path]), force=True).rows


def test_the_same_exam_is_compared(tmp_path):
    write(tmp_path)
    assert len(compare(read_runs([tmp_path])).rows) == 2


def test_what_one_run_does_not_tell_of_its_images_is_not_held_against_it(tmp_path):
    write(tmp_path, media_digest=None)
    assert len(compare(read_runs([tmp_path])).rows) == 2


def test_a_baseline_knows_its_exam(tmp_path):
    path = write(tmp_path, target="no")
    save_baseline(read_run(tmp_path / "a"), tmp_path / "baseline.json")
    stored = read_baseline(tmp_path / "baseline.json")
    with pytest.raises(InputError, match="right answers of vqa"):
        regress(stored, read_run(path))
    assert regress(stored, read_run(tmp_path / "a"))[0][0].passed


def test_a_baseline_of_an_earlier_version_is_still_compared(tmp_path):
    """Its digests were of ids with lmms-eval's hashes, and of the prompts."""
    import json

    from lmms_topoprune.results.settings import earlier_facts

    run = read_run(folders.write(tmp_path / "a", {"vqa": rows()}, folders.plan((), "dense")))
    save_baseline(run, tmp_path / "baseline.json")
    value = json.loads((tmp_path / "baseline.json").read_text())
    exam = ("documents of", "prompts of", "right answers of", "images of")
    facts = {name: v for name, v in value["facts"].items() if not name.startswith(exam)}
    value |= {"schema": "topoprune-baseline/1", "facts": facts | earlier_facts(run.path, "vqa")}
    for scores in value["tasks"].values():
        scores["weights"] = [1 / 3] * 3
    (tmp_path / "baseline.json").write_text(json.dumps(value))
    stored = read_baseline(tmp_path / "baseline.json")
    assert all(check.passed for check in regress(stored, run)[0])
    other = folders.write(tmp_path / "b", {"vqa": rows(input="another")}, folders.plan((), "dense"))
    with pytest.raises(InputError, match="earlier prompts of vqa"):
        regress(stored, read_run(other))
