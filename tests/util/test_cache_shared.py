"""Real processes on one cache: they wait for each other, and a dead one stops nobody."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import filelock
import pytest
from packaging.version import Version

from lmms_topoprune._util.disk_cache import Cache
from lmms_topoprune._util.files import locked

fcntl = pytest.importorskip("fcntl")
WORKER = Path(__file__).parents[1] / "helpers" / "many_processes.py"


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    folder = tmp_path_factory.mktemp("together")
    settings = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, str(WORKER), str(folder)], check=True, timeout=600, env=settings)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("how", "count", "passes"), [("wait", 20, 1), ("compute", 6, 6)])
def test_many_processes_started_together(how, count, passes, together):
    """With a lock one computes for all; without one nobody waits for another, and all write one entry."""
    found = [json.loads(path.read_text()) for path in (together / how / "out").iterdir()]
    assert len(found) == count
    assert len({each["hash"] for each in found}) == 1
    assert all(each["scores"] == found[0]["scores"] for each in found)
    assert [each["said"] for each in found] == [[]] * count  # nothing half-written, nothing set aside
    assert sum(each["passes"] for each in found) == passes
    assert [path.suffix for path in (together / how / "cache").iterdir()] == [".json"]


def test_a_killed_holder_frees_the_lock(tmp_path):
    lock, ready = tmp_path / "x.lock", tmp_path / "ready"
    child = os.fork()
    if child == 0:
        with locked(lock, 0):
            ready.touch()
            time.sleep(60)
        os._exit(0)
    while not ready.exists():
        time.sleep(0.01)
    with locked(lock, 0.2) as held:
        assert not held
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with locked(lock, 5) as held:
        assert held
    assert not lock.exists()


def test_who_waits_gets_what_was_computed_meanwhile(tmp_path):
    cache, seen = Cache(tmp_path), tmp_path / "seen"
    child = os.fork()
    if child == 0:
        with cache.alone("key"):
            seen.touch()
            time.sleep(0.5)
            cache.put("key", 1)
        os._exit(0)
    while not seen.exists():
        time.sleep(0.01)
    assert cache.get("key", int) is None
    with cache.alone("key"):
        assert cache.get("key", int) == 1
    os.waitpid(child, 0)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_where_nothing_can_be_locked_nobody_waits(tmp_path):
    tmp_path.chmod(0o500)
    with locked(tmp_path / "x.lock", 60) as held:
        assert not held


def test_an_error_inside_frees_the_lock(tmp_path):
    with pytest.raises(KeyboardInterrupt), locked(tmp_path / "x.lock", 0):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(
    Version(filelock.__version__) < Version("4.2"),
    reason="filelock 4.1 leaves its descriptor open and locked",
)
@pytest.mark.parametrize(("where", "call"), [(os, "open"), (fcntl, "flock"), (os, "fstat"), (Path, "unlink")])
@pytest.mark.parametrize("after", [False, True])
def test_ctrl_c_at_any_step_of_a_lock_leaves_no_file(where, call, after, tmp_path, monkeypatch):
    """It may come just before or after each step: open, lock, look whether it is still there, delete."""
    real, calls = getattr(where, call), []

    def interrupted(*given, **named):
        calls.append(given)
        if len(calls) > 1:
            return real(*given, **named)
        if after:
            real(*given, **named)
        raise KeyboardInterrupt

    monkeypatch.setattr(where, call, interrupted)
    with pytest.raises(KeyboardInterrupt), locked(tmp_path / "x.lock", 0) as held:
        assert held and call == "unlink"
    assert calls and list(tmp_path.iterdir()) == []
    with locked(tmp_path / "x.lock", 0) as held:
        assert held


def test_ctrl_c_while_waiting_leaves_the_holder_its_lock(tmp_path, monkeypatch):
    def stop(seconds: float) -> None:
        raise KeyboardInterrupt

    with locked(tmp_path / "x.lock", 0) as held:
        monkeypatch.setattr(time, "sleep", stop)
        with pytest.raises(KeyboardInterrupt), locked(tmp_path / "x.lock", 60):
            pytest.fail("the lock was taken twice")
        assert held and (tmp_path / "x.lock").exists()
    assert list(tmp_path.iterdir()) == []
