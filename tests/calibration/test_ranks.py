"""A process that fails or is killed stops the others at once, with its reason."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

WORKER = Path(__file__).with_name("failing_rank.py")
Outcome = dict[int, dict[str, Any]]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Outcome]:
    """What three processes say after a mishap: outcome("raise")[0]["sentence"]."""
    folder = tmp_path_factory.mktemp("ranks")
    mishaps = ["raise", "interrupt", "kill", "kill first"]
    subprocess.run([sys.executable, str(WORKER), str(folder), *mishaps], check=True)
    return lambda what: {int(p.stem): json.loads(p.read_text()) for p in (folder / what).glob("*.json")}


@pytest.mark.parametrize("what", ["raise", "interrupt"])
def test_a_failure_stops_the_others_in_the_middle_of_their_work(outcome, what):
    found = outcome(what)
    assert [found[rank]["shares"] for rank in range(3)] == [[0, 1, 2]] * 3
    assert [found[rank]["first"] for rank in range(3)] == ["from 0"] * 3
    assert [found[rank]["gathered"] for rank in range(3)] == [[0, 1, 2], [], []]
    reason = "the sample is broken" if what == "raise" else "KeyboardInterrupt"
    for rank in (0, 2):
        assert found[rank]["error"] == "Stopped"
        assert found[rank]["sentence"] == f"process 1 of 3 failed: {reason}"
    assert found[1]["error"] == ("Stopped" if what == "raise" else "KeyboardInterrupt")
    assert max(each["seconds"] for each in found.values()) < 15


def test_a_killed_process_is_missed(outcome):
    found = outcome("kill")
    assert found.keys() == {0, 2}
    for each in found.values():
        assert each["sentence"].startswith("process 1 of 3 has not been heard of for")
        assert each["seconds"] < 20


def test_a_killed_first_process_takes_the_store_along(outcome):
    found = outcome("kill first")
    assert found.keys() == {1, 2}
    for each in found.values():
        assert each["sentence"].startswith("process 0 is gone, which the others need")
        assert each["seconds"] < 20
