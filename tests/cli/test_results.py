"""Commands that read result folders."""

from __future__ import annotations

import csv
import errno
import json
import os
from pathlib import Path
from xml.etree import ElementTree

import folders
import pytest

GOOD = [1.0] * 80 + [0.0] * 20
BAD = [1.0] * 50 + [0.0] * 50


@pytest.fixture
def runs(tmp_path):
    folders.write(tmp_path / "dense", {"vqa": folders.exact(GOOD)}, folders.plan((), "dense"))
    folders.write(tmp_path / "pruned", {"vqa": folders.exact(BAD)}, folders.plan())
    return tmp_path


def test_compare(topoprune, runs):
    outputs = [runs / f"board.{kind}" for kind in ("md", "csv", "html", "json")]
    options = [part for output in outputs for part in ("-o", output)]
    code, out, _ = topoprune("compare", runs / "dense", runs / "pruned", *options)
    assert code == 0 and "topology 20 %" in out and "62.5" in out
    assert all(output.stat().st_size > 100 for output in outputs)
    assert float(list(csv.DictReader(outputs[1].open()))[-1]["retention"]) == pytest.approx(0.625)
    assert json.loads(topoprune("compare", runs, "--json")[1]) == json.loads(outputs[3].read_text())


def test_compare_refuses_and_can_be_forced(topoprune, runs):
    folders.write(runs / "other", {"vqa": folders.exact(BAD)}, folders.plan((1,)), limit=5)
    code, out, err = topoprune("compare", runs)
    assert code == 2 and "limit (None and 5)" in err and out == ""
    assert topoprune("compare", runs, "--force")[0] == 0


def test_report(topoprune, runs):
    code, out, _ = topoprune("report", runs, "-o", runs / "report.html", "--json")
    assert code == 0 and json.loads(out)["runs"] == 2
    assert "topology 20 %" in (runs / "report.html").read_text()
    assert topoprune("report", runs, "-o", runs / "report.html", "--tasks", "none")[0] == 2
    assert topoprune("report", runs, "-o", runs / "report.html", "--tasks", "vqa", "--metric", "f1")[0] == 2
    before = (runs / "report.html").read_text()
    code, _, err = topoprune("report", runs, "-o", runs / "report.html" / "below.html")
    assert code == 2 and err.count("\n") == 1 and "cannot be written: its folder is a file" in err
    assert (runs / "report.html").read_text() == before


def test_regress(topoprune, runs, monkeypatch):
    baseline, junit, summary = runs / "baseline.json", runs / "junit.xml", runs / "summary.md"
    assert topoprune("regress", runs / "dense", "--save-baseline", baseline)[0] == 0
    code, out, _ = topoprune("regress", runs / "dense", "--baseline", baseline, "--same-plan")
    assert code == 0 and out.count("ok  ") == 3
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    code, out, err = topoprune("regress", runs / "pruned", "--baseline", baseline, "--junit", junit, "--json")
    assert code == 1 and json.loads(out)["passed"] is False
    assert err.startswith("::error title=vqa::vqa: -30.0 points")
    assert ElementTree.parse(junit).getroot().get("failures") == "2"
    assert "**worse**" in summary.read_text()


def test_outputs_are_written_together_or_not_at_all(topoprune, runs):
    board, bad = runs / "board.md", runs / "board.md" / "below.csv"
    board.write_text("as it was")
    assert topoprune("compare", runs, "-o", board, "-o", runs / "board.png")[0] == 2
    code, _, err = topoprune("compare", runs, "-o", board, "-o", bad)
    assert code == 2 and "nothing was changed" in err and board.read_text() == "as it was"
    topoprune("regress", runs / "dense", "--save-baseline", runs / "baseline.json")
    junit = runs / "junit.xml"
    options = ("--baseline", runs / "baseline.json", "--junit", junit, "--summary", bad)
    assert topoprune("regress", runs / "pruned", *options)[0] == 2 and not junit.exists()


def test_a_summary_that_github_cannot_take_changes_no_verdict(topoprune, runs, monkeypatch):
    topoprune("regress", runs / "dense", "--save-baseline", runs / "baseline.json")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(runs))
    code, out, err = topoprune("regress", runs / "pruned", "--baseline", runs / "baseline.json")
    assert code == 1 and out.count("FAIL") == 2 and "the job's summary" in err and "Traceback" not in err


def test_a_read_only_folder_is_told_by_the_path_that_was_given(topoprune, runs, monkeypatch):
    def refuse(path, *_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    page, whole = runs / "r.html", Path.open
    monkeypatch.setattr(Path, "unlink", refuse)
    monkeypatch.setattr(
        Path, "open", lambda p, *a, **k: refuse(p) if p.suffix == ".tmp" else whole(p, *a, **k)
    )
    code, _, err = topoprune("report", runs, "-o", page)
    assert code == 2 and f"'{page}' cannot be written: Read-only file system" in err and ".tmp" not in err


def test_costs_are_shown(topoprune, runs):
    out = topoprune("compare", runs)[1]
    assert "Cost" in out and "tokens/s" in out and "parameters (M)" in out
