from __future__ import annotations

from xml.etree import ElementTree

import folders
import pytest

from lmms_topoprune.comparison.regression import (
    Check,
    github_annotations,
    junit,
    read_baseline,
    regress,
    save_baseline,
)
from lmms_topoprune.errors import InputError, OptionError
from lmms_topoprune.results.reading import read_run

GOOD = [1.0] * 80 + [0.0] * 20
SAME_BUT_NOISE = [0.0] * 3 + [1.0] * 77 + [1.0, 1.0] + [0.0] * 18
BAD = [0.0] * 20 + [1.0] * 60 + [0.0] * 20


def run(folder, scores, dropped=(3, 4), **config):
    return read_run(folders.write(folder, {"vqa": folders.exact(scores)}, folders.plan(dropped), **config))


def failed(baseline, other, **options):
    checks, _ = regress(baseline, other, **options)
    return [check.name for check in checks if not check.passed]


def test_an_unchanged_run_passes(tmp_path):
    assert failed(run(tmp_path / "a", GOOD), run(tmp_path / "b", GOOD)) == []


def test_a_clear_drop_fails_unless_tolerated(tmp_path):
    baseline, worse = run(tmp_path / "a", GOOD), run(tmp_path / "b", BAD)
    assert failed(baseline, worse) == ["vqa", "overall"]
    assert failed(baseline, worse, tolerance=0.25) == []


def test_a_drop_within_noise_passes(tmp_path):
    baseline, noisy = run(tmp_path / "a", GOOD), run(tmp_path / "b", SAME_BUT_NOISE)
    checks, table = regress(baseline, noisy, tolerance=0.0)
    assert all(check.passed for check in checks)
    assert "within noise" in checks[0].message
    assert "-1.0" in table


def test_a_handful_of_units_is_noise_however_alike(tmp_path):
    """Their bootstrap interval has no width; the exact test knows that five coins fall alike."""
    for count, wrong in ((5, []), (6, ["vqa", "overall"])):
        baseline = run(tmp_path / f"a{count}", [1.0] * count)
        assert failed(baseline, run(tmp_path / f"b{count}", [0.0] * count)) == wrong


def test_a_task_without_documents_does_not_keep_the_others_from_being_checked(tmp_path):
    """A baseline file holds units; lmms-eval's own number of a judged task has none."""
    judged = [folders.row(i, rating={"text": "fine"}) for i in range(8)]
    run = read_run(folders.write(tmp_path, {"vqa": folders.exact([1.0] * 8), "judged": judged}))
    save_baseline(run, tmp_path / "baseline.json")
    checks, _ = regress(read_baseline(tmp_path / "baseline.json"), run)
    assert [check.name for check in checks] == ["vqa", "overall"] and all(check.passed for check in checks)


def test_an_improvement_passes(tmp_path):
    assert failed(run(tmp_path / "a", BAD), run(tmp_path / "b", GOOD)) == []


def test_changed_plan_fails_only_if_asked(tmp_path):
    baseline, other = run(tmp_path / "a", GOOD), run(tmp_path / "b", GOOD, (5, 6))
    assert failed(baseline, other) == []
    assert failed(baseline, other, same_plan=True) == ["dropped layers"]


def test_other_model_or_limit_is_refused(tmp_path):
    baseline = run(tmp_path / "a", GOOD)
    with pytest.raises(InputError, match="limit"):
        regress(baseline, run(tmp_path / "b", GOOD, limit=5))
    other = folders.plan(fingerprint="0" * 16)
    path = folders.write(tmp_path / "c", {"vqa": folders.exact(GOOD)}, other)
    with pytest.raises(InputError, match="weights"):
        regress(baseline, read_run(path))


def test_a_baseline_of_another_model_is_one_sentence(tmp_path):
    baseline = run(tmp_path / "a", GOOD)
    for fields, words in (
        ({"model": "large", "fingerprint": "0" * 16}, "the baseline is of 'tiny' and the run of 'large'"),
        ({"fingerprint": "0" * 16}, "the baseline is of other weights of 'tiny'"),
    ):
        path = folders.write(tmp_path / "b", {"vqa": folders.exact(GOOD)}, folders.plan(**fields))
        with pytest.raises(InputError, match=words) as caught:
            regress(baseline, read_run(path))
        assert "\n" not in str(caught.value) and "weights (ffff" in str(caught.value)


def test_exactly_the_tolerance_passes(tmp_path):
    scores = [[1.0] * 100, [1.0] * 93 + [0.0] * 7]
    assert failed(run(tmp_path / "a", scores[0]), run(tmp_path / "b", scores[1]), tolerance=0.07) == []
    assert failed(run(tmp_path / "a", scores[0]), run(tmp_path / "b", scores[1]), tolerance=0.069)


def test_pairs_are_units_of_a_baseline_too(tmp_path):
    rows = folders.pairs([(1, 1), (1, 0)] * 10)
    original = read_run(folders.write(tmp_path / "a", {"mme": rows}, folders.plan()))
    save_baseline(original, tmp_path / "baseline.json")
    stored = read_baseline(tmp_path / "baseline.json")
    assert stored.tasks["mme"].strata == original.tasks["mme"].strata
    assert regress(stored, original) == regress(original, original)


def test_other_versions_are_allowed(tmp_path):
    paths = [
        folders.write(tmp_path / v, {"vqa": folders.exact(GOOD)}, folders.plan(versions={"torch": v}))
        for v in "12"
    ]
    assert failed(*(read_run(path) for path in paths)) == []


def test_bad_tolerance(tmp_path):
    baseline = run(tmp_path / "a", GOOD)
    with pytest.raises(OptionError, match="tolerance"):
        regress(baseline, baseline, tolerance=-1)


def test_baseline_file_keeps_everything_a_check_needs(tmp_path):
    original = run(tmp_path / "a", GOOD)
    save_baseline(original, tmp_path / "baseline.json")
    stored = read_baseline(tmp_path / "baseline.json")
    assert stored.facts == original.facts
    assert stored.plan.hash == original.plan.hash
    assert regress(stored, original) == regress(original, original)
    assert failed(stored, run(tmp_path / "b", BAD)) == ["vqa", "overall"]


def test_broken_baseline_is_one_sentence(tmp_path):
    path = tmp_path / "baseline.json"
    for text, words in (("{", "cut short"), ("{}", "no file of")):
        path.write_text(text)
        with pytest.raises(InputError, match=words):
            read_baseline(path)
    with pytest.raises(InputError, match="cannot be written"):
        save_baseline(run(tmp_path / "a", GOOD), path / "below")


def test_junit_and_annotations(tmp_path):
    checks, _ = regress(run(tmp_path / "a", GOOD), run(tmp_path / "b", BAD))
    suite = ElementTree.fromstring(junit(checks))
    assert suite.get("tests") == "2" and suite.get("failures") == "2"
    assert suite.find("testcase/failure").get("message").startswith("vqa: -20.0 points")
    lines = github_annotations(checks).splitlines()
    assert len(lines) == 2 and lines[0].startswith("::error title=vqa::vqa: -20.0 points, 95 %25 interval")


def test_junit_survives_strange_names(tmp_path):
    checks = [Check("a\x0b<b>", False, "worse\x00 & more")]
    suite = ElementTree.fromstring(junit(checks))
    assert suite.find("testcase").get("name") == "a?<b>"
    assert github_annotations([Check("a,b:c", False, "50 %\nnext")]) == (
        "::error title=a%2Cb%3Ac::50 %25%0Anext\n"
    )


@pytest.mark.parametrize("in_a_file", [True, False])
def test_chosen_tasks_alone_are_checked(tmp_path, in_a_file):
    for name, second in (("before", GOOD), ("after", BAD)):
        rows = {"vqa": folders.exact(GOOD), "other": folders.exact(second)}
        folders.write(tmp_path / name, rows, folders.plan())
    stored = tmp_path / ("baseline.json" if in_a_file else "before")
    if in_a_file:
        save_baseline(read_run(tmp_path / "before"), stored)
    assert failed(read_baseline(stored), read_run(tmp_path / "after")) == ["other", "overall"]
    assert failed(read_baseline(stored, ["vqa"]), read_run(tmp_path / "after", ["vqa"])) == []
    with pytest.raises(OptionError, match="task is 'third'; allowed: other, vqa"):
        read_baseline(stored, ["third"])
