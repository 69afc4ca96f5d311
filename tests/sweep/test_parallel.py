"""Cells in parallel, in processes: the same results, whatever happens to the workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stand_in import Habits, StandIn

from lmms_topoprune.errors import GenerationError, InputError, OptionError
from lmms_topoprune.sweep import workers as processes
from lmms_topoprune.sweep.executor import Serial
from lmms_topoprune.sweep.grid import Grid
from lmms_topoprune.sweep.runner import Watcher, sweep
from lmms_topoprune.sweep.workers import Processes, devices, threads

pytestmark = pytest.mark.slow

GRID = Grid(("last_n", "uniform"), (0.34, 0.5))
CELLS = {"none", "3-4", "2-4", "2+4", "1+3-4"}


@pytest.fixture
def habits(tmp_path):
    (tmp_path / "notes").mkdir()
    return lambda **more: Habits(tmp_path / "notes", **more)


@pytest.fixture
def swept(tiny_llava, tmp_path):
    """swept(habits, executor) -> the sweep's folder."""

    def run(habits, executor=None, name="out", watcher=None):
        evaluator = StandIn(habits, tiny_llava(layers=6))
        sweep(evaluator, GRID, ["vqa"], tmp_path / name, executor=executor, watcher=watcher)
        return tmp_path / name

    return run


def content(folder: Path) -> dict[str, bytes]:
    """Results and samples; plans tell how long they took."""
    found = (
        p for part in ("results.json", "samples_*.jsonl") for p in (folder / "layers").rglob(f"*_{part}")
    )
    return {str(p.relative_to(folder)): p.read_bytes() for p in found}


def finished(folder: Path) -> set[str]:
    return {path.name for path in (folder / "layers").iterdir() if path.name[0] != "."}


def test_processes_give_what_one_process_gives(habits, swept):
    alone = swept(habits(), name="alone")
    # Long enough for the second process to have started before the first has answered everything.
    together = swept(habits(pause=3.0), Processes(habits(pause=3.0), 2), name="together")
    assert finished(together) == CELLS
    assert content(together) == content(alone)
    at_work = {pid for _, pid in habits().started()} - {os.getpid()}
    assert len(at_work) == 2 and not any(map(alive, at_work))


class Log(Watcher):
    def __init__(self) -> None:
        self.said: list[str] = []

    def answered(self, plan, done, total) -> None:
        self.said.append(f"{done} of {total}")

    def retrying(self, plan, reason) -> None:
        self.said.append(reason)


def test_the_cell_of_a_worker_that_dies_is_tried_again(habits, swept):
    log = Log()
    folder = swept(habits(), Processes(habits(dies_once="2-4"), 2), watcher=log)
    assert finished(folder) == CELLS
    assert "its process ended with exit code -9" in log.said and "1 of 20" in log.said
    assert [layers for layers, _ in habits().started()].count("2-4") == 2


def test_a_cell_that_kills_its_workers_is_named_and_the_others_are_kept(habits, swept):
    with pytest.raises(
        GenerationError, match="1 of 5 models failed: the model without layers 2-4: 2 workers"
    ):
        swept(habits(), Processes(habits(dies="2-4"), 2))
    before = len(habits().started())
    folder = swept(habits())
    assert finished(folder) == CELLS and len(habits().started()) == before + 1


@pytest.mark.parametrize("workers", [0, 2])
def test_a_cell_that_fails_is_named_and_the_others_are_kept(habits, swept, tmp_path, workers):
    wrong = habits(fails="3-4")
    with pytest.raises(GenerationError, match="layers 3-4: the model failed at question 3"):
        swept(wrong, Processes(wrong, workers) if workers else None)
    assert finished(tmp_path / "out") == CELLS - {"3-4"}


def test_a_model_that_cannot_be_loaded_is_said_once(habits, swept):
    with pytest.raises(InputError, match="cannot be loaded"):
        swept(habits(), Processes(habits(opens=False), 2))


def test_workers_are_counted_from_one(habits):
    with pytest.raises(OptionError, match="workers is 0"):
        Processes(habits(), 0)


def alive(pid: int) -> bool:
    """Running, and not only waiting for its exit code to be read."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pids: set[int], within: float = 10.0) -> bool:
    end = time.monotonic() + within
    while any(map(alive, pids)) and time.monotonic() < end:
        time.sleep(0.1)
    return not any(map(alive, pids))


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_no_worker_outlives_the_sweep(habits, swept, tiny_llava, tmp_path, how):
    tiny_llava(layers=6).save_pretrained(tmp_path / "model")
    script = f"""
import sys
sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parents[1] / "helpers")!r}]
if __name__ == "__main__":  # the workers need none of it
    from pathlib import Path
    from transformers import LlavaForConditionalGeneration
    from test_parallel import GRID, Habits, Processes, StandIn, sweep
    model = LlavaForConditionalGeneration.from_pretrained({str(tmp_path / "model")!r})
    habits = Habits(Path({str(tmp_path / "notes")!r}), hangs="2-4")
    sweep(StandIn(habits, model), GRID, ["vqa"], {str(tmp_path / "out")!r}, executor=Processes(habits, 2))
"""
    (tmp_path / "script.py").write_text(script)
    running = subprocess.Popen([sys.executable, str(tmp_path / "script.py")], start_new_session=True)
    end = time.monotonic() + 120
    while not {"2-4", "2+4"} <= dict(habits().started()).keys() and time.monotonic() < end:
        time.sleep(0.1)  # one worker hangs; the other has finished something
    workers = {pid for _, pid in habits().started()}
    if how == signal.SIGINT:
        os.killpg(running.pid, how)  # as a terminal does
    else:
        running.kill()
    running.wait(30)
    assert workers and gone(workers)
    done = finished(tmp_path / "out")
    begun = len(habits().started())
    folder = swept(habits())
    assert done and finished(folder) == CELLS
    assert len(habits().started()) - begun == len(CELLS - done)


def test_devices_are_shared_out_in_turn(monkeypatch):
    monkeypatch.setattr(processes.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(processes.torch.cuda, "device_count", lambda: 2)
    assert devices(3) == ["cuda:0", "cuda:1", "cuda:0"]
    assert devices(2, "cpu") == ["cpu", "cpu"]
    monkeypatch.setattr(processes.torch.cuda, "is_available", lambda: False)
    assert devices(2) == [None, None]


def test_threads_are_shared_out(monkeypatch):
    monkeypatch.setattr(processes.os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(processes.torch, "get_num_threads", lambda: 8)
    assert [threads(n) for n in (1, 2, 3, 16)] == [8, 4, 2, 1]
    monkeypatch.setattr(processes.torch, "get_num_threads", lambda: 1)
    assert threads(2) == 1


def test_serial_uses_the_evaluator_itself(habits):
    assert not Serial(StandIn(habits())).own_models and Processes(habits(), 1).own_models
