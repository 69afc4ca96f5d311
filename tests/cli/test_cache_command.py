"""`topoprune cache` lists, filters and clears."""

from __future__ import annotations

import json
import os
import time

import pytest

from lmms_topoprune._util.disk_cache import Cache
from lmms_topoprune.cli.main import main


@pytest.fixture
def cache():
    """Three entries of two models, one of them ten days old, and one that was set aside."""
    found = Cache.default()
    for number, model in enumerate(("embedded", "embedded", "org/large")):
        about = {"kind": "scores", "model": model, "criterion": "topology"}
        found.put([number], {"scores": [number]}, about)
    oldest = next(p for p in found.entries() if json.loads(p.read_bytes())["key"] == [0])
    past = time.time() - 10 * 86400
    os.utime(oldest, (past, past))
    (found.folder / "x.corrupt").write_text("{")
    return found


@pytest.fixture
def run(capsys):
    def call(*arguments):
        with pytest.raises(SystemExit) as exit:
            main(["cache", *arguments])
        return exit.value.code, capsys.readouterr()

    return call


def test_it_lists_what_is_there(cache, run):
    code, said = run()
    lines = said.out.splitlines()
    assert code == 0 and lines[0].startswith(f"{cache.folder}: 4 entries, ")
    assert sum("scores (topology)" in line and line.endswith("embedded") for line in lines) == 2
    assert sum(" 10 d " in line for line in lines) == 1 and sum("set aside" in line for line in lines) == 1


def test_json_says_age_size_model_and_kind(cache, run):
    found = json.loads(run("--json")[1].out)
    assert found["folder"] == str(cache.folder) and found["cleared"] is None
    assert found["bytes"] == sum(p.stat().st_size for p in cache.folder.iterdir())
    assert {(e["kind"], e["model"], e["criterion"]) for e in found["entries"]} == {
        ("scores", "embedded", "topology"),
        ("scores", "org/large", "topology"),
        ("set aside", "", ""),
    }
    assert max(e["age"] for e in found["entries"]) == pytest.approx(10 * 86400, abs=60)


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        ((), []),
        (("--model", "embedded"), [[2]]),
        (("--model", "org/*"), [[0], [1]]),
        (("--older-than", "7d"), [[1], [2]]),
        (("--older-than", "2w"), [[0], [1], [2]]),
        (("--model", "embedded", "--older-than", "1h"), [[1], [2]]),
    ],
)
def test_it_clears_what_is_asked_for(cache, run, arguments, left):
    assert run("--clear", *arguments)[0] == 0
    assert sorted(json.loads(p.read_bytes())["key"] for p in cache.entries()) == left


@pytest.mark.parametrize("damage", ["deep", "pipe", "marked"])
def test_hostile_files_are_listed_and_never_waited_for(cache, run, damage):
    path = cache.folder / "0.json"
    if damage == "pipe":
        os.mkfifo(path)
    else:
        about = {"kind": "scores", "model": "\x1b[31mred\n::warning::x"}
        path.write_text("[" * 10**5 if damage == "deep" else json.dumps({"about": about}))
    code, said = run()
    assert code == 0 and "\x1b" not in said.out and "\n::" not in said.out
    assert sum("set aside" in line for line in said.out.splitlines()) == 1 + (damage == "deep")


def test_a_mistake_and_an_absent_cache(run, monkeypatch):
    code, said = run("--older-than", "soon")
    assert code == 2 and "older-than is 'soon'; allowed: a number and s, m, h, d or w" in said.err
    assert "0 entries" in run()[1].out
    monkeypatch.setenv("TOPOPRUNE_CACHE", "off")
    assert "switched off" in run()[1].out and json.loads(run("--json")[1].out)["folder"] is None
