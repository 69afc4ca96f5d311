"""A sweep takes nothing for finished that cannot be read, and mends what was damaged since."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
from test_sweep import CHEAP, Evaluator

from lmms_topoprune.errors import InputError
from lmms_topoprune.sweep import folder as cells
from lmms_topoprune.sweep.run_folders import read_runs
from lmms_topoprune.sweep.runner import Watcher, sweep


class Listener(Watcher):
    def __init__(self) -> None:
        self.reasons: list[str] = []

    def damaged(self, reason: str) -> None:
        self.reasons.append(reason)


class Joined(Evaluator):
    """Another sweep is started in the same folder while this one evaluates."""

    folder: Path

    def evaluate(self, plan, tasks, output, **given) -> Path:
        with pytest.raises(InputError, match="is in use by another sweep"):
            sweep(Evaluator(self.model, self.processor), CHEAP, ["vqa"], self.folder)
        return super().evaluate(plan, tasks, output, **given)


class Truncating(Evaluator):
    """Samples are lost on the way to the disk, as on a full one: lmms-eval only warns."""

    def evaluate(self, plan, tasks, output, **given) -> Path:
        path = super().evaluate(plan, tasks, output, **given)
        if len(self.evaluated) > 1:
            next(output.rglob("*_samples_*.jsonl")).write_text("")
        return path


@pytest.fixture
def evaluator(tiny_llava, embedded_processor):
    return lambda kind=Evaluator: kind(tiny_llava(layers=6), embedded_processor)


@pytest.mark.parametrize("full", [False, True])
def test_an_incomplete_evaluation_is_never_finished(full, evaluator, tmp_path, monkeypatch):
    def no_room(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        if full:
            patch.setattr(cells.os, "fsync", no_room)
            patch.setattr(cells.files, "write_bytes", lambda path, data: _plainly(path, data))
        with pytest.raises(InputError, match="No space left" if full else "no samples with a doc_id"):
            sweep(evaluator(Truncating), CHEAP, ["vqa"], tmp_path)
    assert [path.name for path in (tmp_path / "layers").iterdir()] == ["none"]
    rest = evaluator()
    assert len(sweep(rest, CHEAP, ["vqa"], tmp_path)) == 5
    assert "none" not in rest.evaluated


def _plainly(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _empty_folder(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


DAMAGE = {
    "truncated samples": lambda folder: _cut(folder, "*_samples_*"),
    "deleted samples": lambda folder: next(folder.rglob("*_samples_*")).unlink(),
    "truncated results": lambda folder: _cut(folder, "*_results.json"),
    "empty folder": _empty_folder,
}


def _cut(folder: Path, pattern: str) -> None:
    path = next(folder.rglob(pattern))
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_cell_is_evaluated_again(damage, evaluator, tmp_path):
    whole = sweep(evaluator(), CHEAP, ["vqa"], tmp_path)
    broken = whole[1].dropped
    DAMAGE[damage](tmp_path / "layers" / broken)
    with pytest.raises(InputError, match="; run the same sweep again, which mends it") as refused:
        read_runs([tmp_path])
    assert "evaluate" not in str(refused.value) and "lmms-eval" not in str(refused.value)
    again, listener = evaluator(), Listener()
    mended = sweep(again, CHEAP, ["vqa"], tmp_path, watcher=listener)
    assert again.evaluated == [broken]
    (reason,) = listener.reasons
    assert broken in reason and ";" not in reason
    assert [run.tasks["vqa"].score for run in mended] == [run.tasks["vqa"].score for run in whole]
    assert len(read_runs([tmp_path])) == 5


def test_a_damaged_plan_is_made_again(evaluator, tmp_path):
    sweep(evaluator(), CHEAP, ["vqa"], tmp_path)
    plans = tmp_path / "plans"
    for path in (plans / "dense.json", plans / "last_n-0.34-seed0.json"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="is not valid JSON; run the same sweep again"):
        read_runs([tmp_path])
    again, listener = evaluator(), Listener()
    sweep(again, CHEAP, ["vqa"], tmp_path, watcher=listener)
    assert again.evaluated == [] and len(listener.reasons) == 2
    assert len(read_runs([tmp_path])) == 5


def test_two_sweeps_at_once_are_refused(evaluator, tmp_path):
    first = evaluator(Joined)
    first.folder = tmp_path
    assert len(sweep(first, CHEAP, ["vqa"], tmp_path)) == 5
    assert not (tmp_path / "sweep.lock").exists()


def test_a_file_system_without_locks_is_no_obstacle(evaluator, tmp_path, monkeypatch):
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("filelock._unix.fcntl.flock", no_locks)
    assert len(sweep(evaluator(), CHEAP, ["vqa"], tmp_path)) == 5
