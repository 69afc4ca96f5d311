"""Whatever is wrong with a file, the answer is one sentence, and nothing is overwritten."""

from __future__ import annotations

import copy
import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import folders
import pytest

from lmms_topoprune._util.files import read_toml, write_all
from lmms_topoprune.calibration.states_file import SavedStates
from lmms_topoprune.comparison.across_models import read_published
from lmms_topoprune.comparison.regression import read_baseline, regress, save_baseline
from lmms_topoprune.comparison.side_by_side import compare
from lmms_topoprune.errors import InputError
from lmms_topoprune.plan import PruningPlan
from lmms_topoprune.report.tables import save
from lmms_topoprune.results.reading import read_run
from lmms_topoprune.results.similarity import read_shape
from lmms_topoprune.sweep.folder import SweepFolder
from lmms_topoprune.sweep.recipe import Recipe
from lmms_topoprune.sweep.run_folders import read_runs
from lmms_topoprune.topology.barcode import Barcode

STRANGE = (None, "text", -1e300, [[1]], {"a": None})


@pytest.fixture
def results(tmp_path) -> Path:
    samples = {"vqa": folders.exact([1.0, 0.0, 1.0]), "mme": folders.pairs([(1, 1), (1, 0)])}
    stages = {"calibrate": {"seconds": 1.0}, "generate": {"seconds": 2.0, "peak_bytes": 5}}
    record = {"dtype": "float32", "answers": {"total": 7}, "size": {"parameters": 3}}
    return folders.write(tmp_path / "run", samples, folders.plan(stages=stages), {"vqa": 0.2}, record=record)


READERS = {
    "plan": PruningPlan.load,
    "similarity": read_shape,
    "baseline": read_baseline,
    "published": read_published,
    "states": SavedStates.load,
    "barcode": lambda path: Barcode.load(path, first=1),
    "families": read_toml,
    "recipe": Recipe.load,
    "results": read_run,
}


@pytest.mark.parametrize("kind", READERS)
def test_a_pipe_is_refused_and_never_waited_for(kind, tmp_path):
    path = tmp_path / "1_results.json"
    os.mkfifo(path)
    with pytest.raises(InputError, match=r"pipe or a device|holds no \*_results"):
        READERS[kind](path)


def test_samples_with_a_byte_order_mark_are_samples(results):
    file = next(results.parent.glob("*_samples_vqa.jsonl"))
    scores = read_run(results).tasks["vqa"].scores.tolist()
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert read_run(results).tasks["vqa"].scores.tolist() == scores


def mutants(value: Any) -> Iterator[Any]:
    """The value with each of its parts replaced by something strange, or left out."""
    paths = list(places(value))
    for path in paths:
        for strange in STRANGE:
            yield changed(value, path, lambda parent, key, strange=strange: parent.__setitem__(key, strange))
        yield changed(value, path, lambda parent, key: parent.pop(key))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield (*path, key)
        yield from places(value[key], (*path, key))


def changed(value: Any, path: tuple[Any, ...], change: Any) -> Any:
    value = copy.deepcopy(value)
    parent = value
    for key in path[:-1]:
        parent = parent[key]
    change(parent, path[-1])
    return value


def one_sentence(action: Any, *arguments: Any) -> bool:
    """Whether the action worked; if not, it ended in a sentence of ours."""
    try:
        action(*arguments)
    except InputError as error:
        assert "\n" not in str(error) and len(str(error)) < 600
        return False
    return True


def test_no_change_to_a_results_file_ends_in_a_traceback(results):
    whole = json.loads(results.read_text())
    outcomes = []
    for mutant in mutants(whole):
        results.write_text(json.dumps(mutant))
        outcomes.append(one_sentence(read_run, results))
    assert 0.05 < sum(outcomes) / len(outcomes) < 0.95  # both happen


@pytest.mark.parametrize("name", ["_samples_vqa.jsonl", "_samples_mme.jsonl", "_plan.json"])
def test_no_change_to_samples_or_plan_does(results, name):
    path = results.with_name(results.name.replace("_results.json", name))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for mutant in mutants(lines):
        path.write_text("".join(json.dumps(line) + "\n" for line in mutant))
        if one_sentence(read_run, results):
            one_sentence(compare, [read_run(results)])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"doc_id": None}, "holds no samples with a doc_id"),
        ({"doc_id": {"a": 1}}, "holds no samples with a doc_id"),
        ({"exact_match": float("inf")}, r"has a score of inf; allowed: numbers up to 1e\+100"),
        ({"exact_match": 1e308}, r"has a score of 1e\+308; allowed: numbers up to 1e\+100"),
    ],
)
def test_a_value_that_no_row_can_have_is_named(tmp_path, change, words):
    first, *others = folders.exact([1.0, 0.0])
    rows = [{**first, **change}, *others]
    with pytest.raises(InputError, match=words):
        read_run(folders.write(tmp_path, {"vqa": rows}))


def test_files_cut_anywhere(results):
    for path in sorted(results.parent.iterdir()):
        whole = path.read_bytes()
        for end in range(0, len(whole) - 1, max(1, len(whole) // 60)):
            path.write_bytes(whole[:end])
            assert not one_sentence(read_run, results), (path.name, end)
        path.write_bytes(whole)
    assert one_sentence(read_run, results)


def test_samples_cut_between_two_lines_are_noticed(results):
    path = next(results.parent.glob("*_samples_vqa.jsonl"))
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(InputError, match="cut short: it holds 2 of 3 documents"):
        read_run(results)


def test_line_separators_inside_a_text_split_no_line(results):
    path = next(results.parent.glob("*_samples_vqa.jsonl"))
    rows = [{**json.loads(line), "input": "a\u2028b\u0085c"} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
    assert len(read_run(results).tasks["vqa"].units) == 3


def test_damaged_baselines(results, tmp_path):
    path, run = tmp_path / "baseline.json", read_run(results)
    save_baseline(run, path)
    for mutant in mutants(json.loads(path.read_text())):
        path.write_text(json.dumps(mutant))
        if one_sentence(read_baseline, path):
            one_sentence(regress, read_baseline(path), run)
    with pytest.raises(InputError, match="does not exist"):
        read_baseline(tmp_path / "none.json")


def test_damaged_similarities(tmp_path):
    path = tmp_path / "similarity" / "topology.json"
    path.parent.mkdir()
    bars = [{"k": 5, "dimension": 1, "states": 2, "bars": [[1, 0, 3, 4]]}]
    whole = {"criterion": "topology", "values": [[1, 0.5], [0.5, 1]], "barcodes": bars}
    path.write_text(json.dumps(whole))
    shape = SweepFolder(tmp_path).shapes()["topology"]
    assert shape.similarity == whole["values"] and len(shape.barcodes[5][0]) == 4
    for mutant in mutants(whole):
        path.write_text(json.dumps(mutant))
        one_sentence(read_shape, path)


def test_a_folder_whose_path_has_dots_is_read(results, monkeypatch):
    hidden = results.parent.parent / ".runs"
    results.parent.rename(hidden)
    (hidden / "below").mkdir()
    monkeypatch.chdir(hidden / "below")
    assert len(read_runs([".."])) == 1 and len(read_runs([hidden])) == 1


def test_all_files_or_none(results, tmp_path):
    comparison = compare([read_run(results)], dense="topology 20 %", force=True)
    kept, place = tmp_path / "kept.md", tmp_path / "a file"
    for path in (kept, place):
        path.write_text("as it was")
    with pytest.raises(
        InputError, match=r"below.csv' cannot be written: its folder is a file; nothing was changed"
    ):
        save(comparison, kept, place / "below.csv")
    with pytest.raises(InputError, match=r"run' cannot be written: Is a directory"):
        write_all({kept: "new", results.parent: "new"})
    assert kept.read_text() == place.read_text() == "as it was"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a file", "kept.md", "run"]


@pytest.mark.parametrize("reason", ["a file", "a full disk"])
def test_no_new_folder_is_left_where_a_later_file_is_refused(tmp_path, monkeypatch, reason):
    (tmp_path / "a file").write_text("as it was")
    target = {"a file": tmp_path / "a file" / "b.csv", "a full disk": tmp_path / "b.csv"}[reason]
    made = []

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        if reason == "a file":
            mkdir = Path.mkdir
            patch.setattr(Path, "mkdir", lambda self, *a, **k: made.append(self) or mkdir(self, *a, **k))
        else:
            patch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match="nothing was changed"):
            write_all({tmp_path / "new" / "deep" / "a.md": "new", target: "new"})
    assert not made and [path.name for path in tmp_path.iterdir()] == ["a file"]


def test_a_full_disk_leaves_everything_as_it_was(tmp_path, monkeypatch):
    kept = tmp_path / "kept.md"
    kept.write_text("as it was")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"kept.md' cannot be written: No space left on device"):
        write_all({kept: "new"})
    monkeypatch.undo()
    assert kept.read_text() == "as it was" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files")
def test_a_real_write_that_fails_halfway(results, tmp_path):
    """A limit on the size of files stops the writing as a full disk does, in the middle of a file."""
    target = tmp_path / "report.html"
    target.write_text("as it was")
    script = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096));"
        "from lmms_topoprune.cli.main import main; main(sys.argv[1:])"
    )
    label = ["--dense", "topology 20 %"]
    command = [sys.executable, "-c", script, "report", str(results.parent), "-o", str(target), *label]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.startswith("topoprune: ") and "File too large; nothing was changed" in done.stderr
    assert target.read_text() == "as it was"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html", "run"]


def test_a_symbolic_link_is_followed_and_stays(tmp_path):
    (tmp_path / "real").mkdir()
    for name in ("there", "dangling"):
        (tmp_path / name).symlink_to(Path("real") / name)
    (tmp_path / "real" / "there").write_text("old")
    write_all({tmp_path / "there": "new", tmp_path / "dangling": "new"})
    assert all((tmp_path / name).is_symlink() for name in ("there", "dangling"))
    (tmp_path / "astray").symlink_to(Path("real") / "there" / "below")
    with pytest.raises(InputError, match="astray' cannot be written: its folder is a file"):
        write_all({tmp_path / "astray": "new"})
    assert [path.read_text() for path in sorted((tmp_path / "real").iterdir())] == ["new", "new"]
