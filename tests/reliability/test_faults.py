"""Every fault of research/2026-11-28-faults.md, once; benchmarks/faults.py tries each of them many times."""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path

import pytest
from faults import FAULTS, lost_hub
from scene import Scene, damaged

from lmms_topoprune._util import files
from lmms_topoprune.plan import PruningPlan

pytestmark = pytest.mark.slow

SLOW = {
    "hub lost in the middle of a download",  # half a minute of the hub client's own retries
    "killed or failing process among three",  # tests/calibration/test_ranks.py
}


@pytest.mark.parametrize("name", [name for name in FAULTS if name not in SLOW])
def test_a_fault_ends_as_promised(scene, name):
    _, function = FAULTS[name]
    function(scene(name))


def test_every_fault_is_in_the_table():
    page = (Path(__file__).parents[2] / "research" / "2026-11-28-faults.md").read_text()
    assert [name for name in FAULTS if f"| {name} |" not in page] == []
    assert FAULTS["hub lost in the middle of a download"][1] is lost_hub


def test_a_plan_damaged_anywhere_is_refused_or_the_same(tiny_folder, tmp_path):
    """Many damages are cheap without a model."""
    whole = (tiny_folder / "plan.json").read_bytes()
    rng, refused = random.Random(0), 0
    for _ in range(300):
        (tmp_path / "plan.json").write_bytes(damaged(whole, rng))
        try:
            assert PruningPlan.load(tmp_path / "plan.json").dropped == (2, 3)
        except ValueError as error:
            assert len(str(error).splitlines()) == 1
            refused += 1
    assert refused > 200


def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    files.write_text(pipe, "text")
    reader.join()
    assert read == ["text"] and pipe.is_fifo()


def test_the_faults_can_fail(scene, monkeypatch):
    """Where a file is written in place a full disk leaves half of it, and the trial says so."""
    monkeypatch.setattr(files, "write_together", lambda all_: [p.write_bytes(d) for p, d in all_.items()])
    with pytest.raises(AssertionError):
        FAULTS["disk full: plan file"][1](scene("broken"))


def test_nothing_is_left_of_a_trial(scene):
    made: Scene = scene("x")
    assert list(made.folder.iterdir()) == []


def test_a_list_is_no_substitute_for_parameters(tiny_folder, tmp_path):
    """An empty list has the same items as no parameters, and so the same hash."""
    text = (tiny_folder / "plan.json").read_text()
    (tmp_path / "plan.json").write_text(text.replace('"parameters": {}', '"parameters": []'))
    with pytest.raises(ValueError, match=r"has parameters = \[\], which should be a valid dictionary"):
        PruningPlan.load(tmp_path / "plan.json")
