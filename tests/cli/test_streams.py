"""A reader of our output that goes away, in real processes: in one process click and rich see no pipe."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import folders
import pytest

GOOD, BAD = [1.0] * 80 + [0.0] * 20, [1.0] * 50 + [0.0] * 50


@pytest.fixture
def runs(tmp_path):
    folders.write(tmp_path / "dense", {"vqa": folders.exact(GOOD)}, folders.plan((), "dense"))
    folders.write(tmp_path / "pruned", {"vqa": folders.exact(BAD)}, folders.plan())
    return tmp_path


def unread(*arguments: object, errors_too: bool = False) -> tuple[int, str]:
    """Exit code and standard error of a command whose output nobody reads."""
    command = [sys.executable, "-m", "lmms_topoprune.cli.main", *map(str, arguments)]
    errors = subprocess.STDOUT if errors_too else subprocess.PIPE
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    process.stdout.close()
    said = process.stderr.read() if process.stderr else ""
    return process.wait(), said


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("--json",)])
def test_a_closed_pipe_changes_no_verdict(runs, more):
    baseline = ("--baseline", runs / "dense")
    assert unread("compare", runs, *more) == (0, "")
    assert unread("regress", runs / "dense", *baseline, *more) == (0, "")
    assert unread("regress", runs / "pruned", *baseline, *more) == (1, "")


def test_a_pipe_for_both_streams_changes_none_either(runs):
    assert unread("compare", runs / "nowhere", errors_too=True)[0] == 2
    assert unread("regress", runs / "dense", "--baseline", runs / "dense", errors_too=True)[0] == 0


def test_a_closed_pipe_leaves_the_doctor_his_own_verdict():
    script = (
        "import sys; from lmms_topoprune.cli import doctor; from lmms_topoprune.cli.main import main\n"
        "doctor.examine = lambda: [doctor.Finding('it', {works}, True, 'so')] * 3\n"
        "sys.argv = ['topoprune', 'doctor']; main()"
    )
    for works in (True, False):
        command = [sys.executable, "-c", script.format(works=works)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        process.stdout.close()
        assert process.wait() == (0 if works else 1)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_line_that_is_told_is_told_at_once(unbuffered):
    """A bar's last newline would come after what is printed next, which hung at the bar."""
    script = (
        "import os, sys; from lmms_topoprune.cli.main import outlive_readers; outlive_readers()\n"
        "sys.stderr.write('a bar\\n'); os.write(2, b'the next line\\n')"
    )
    told = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    )
    assert told.stderr == "a bar\nthe next line\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("more", [(), ("--json",)])
def test_a_full_standard_output_is_one_sentence(runs, more):
    command = [sys.executable, "-m", "lmms_topoprune.cli.main", "compare", str(runs), *more]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    said = "topoprune: 'standard output' cannot be written: No space left on device\n"
    assert (done.returncode, done.stderr) == (2, said)
