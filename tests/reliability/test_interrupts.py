"""Ctrl-C, SIGTERM and kill -9 at random moments of real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from families import properties as holds
from families.table import FAMILIES

from lmms_topoprune._util.signals import Terminated, errors_kept, exit_of, interruptions_first, stoppable
from lmms_topoprune.calibration.prompts import Prompter
from lmms_topoprune.errors import InputError
from lmms_topoprune.harness.user_errors import one_sentence
from lmms_topoprune.surgery.dense_model import DenseModel
from lmms_topoprune.surgery.locate import locate

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture(autouse=True)
def _no_handler_of_others():
    """Ray, used by earlier tests of the same process, leaves a handler of SIGTERM behind."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


@pytest.mark.slow
def test_stopped_at_random_moments_nothing_is_left(tiny_folder, tmp_path):
    command = [sys.executable, HERE / "interrupts.py", "--model", tiny_folder, "--work", tmp_path]
    more = ["--count", "8", "--seed", "1", "--commands", "plan,export,sweep"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *more], env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["wrong"] == [] and found["tried"] == 8


@pytest.mark.slow
def test_a_command_of_its_own_says_one_line(tiny_folder, tmp_path):
    """From the interpreter's start to its end, not forked."""
    arguments = ["plan", "--pretrained", str(tiny_folder), "--samples", "64", "--sparsity", "0.4"]
    command = [sys.executable, "-m", "lmms_topoprune.cli.main", *arguments]
    environment = {**os.environ, "TOPOPRUNE_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    run = subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    end = time.monotonic() + 60
    while "libtorch" not in Path(f"/proc/{run.pid}/maps").read_text() and time.monotonic() < end:
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=120)
    assert (run.returncode, said.strip().splitlines()[-1]) == (130, "topoprune: interrupted")
    assert "Traceback" not in said


def test_sigterm_unwinds_and_is_given_back():
    cleaned = []
    with pytest.raises(Terminated), stoppable():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        finally:
            cleaned.append(True)
    assert cleaned and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert exit_of(Terminated()) == ("terminated", 143)
    assert exit_of(KeyboardInterrupt()) == ("interrupted", 130)


def interrupted(*_: Any, **__: Any) -> NoReturn:
    """Ctrl-C comes, and whoever it hits fails to clean up: what transformers' no_init_weights does."""
    try:
        raise KeyboardInterrupt
    finally:
        raise UnboundLocalError("cannot access local variable 'original_init_weights'")


def _through_context() -> None:
    try:
        interrupted()
    except UnboundLocalError as error:
        raise InputError("the model cannot be loaded") from error


def _through_cause() -> None:
    error = RuntimeError("Error calling __set_name__")
    error.__cause__ = Terminated()
    raise error


def _beside_a_cause() -> None:
    stored = ValueError("from elsewhere")
    try:
        raise KeyboardInterrupt
    finally:
        raise InputError("the clean-up failed") from stored


def _in_a_cycle() -> None:
    error = ValueError("its own cause")
    raise error from error


def _on_its_own() -> None:
    try:
        raise UnboundLocalError("a defect")
    except UnboundLocalError as error:
        raise InputError("the model cannot be loaded") from error


@pytest.mark.parametrize(
    ("fails", "wanted"),
    [
        (_through_context, KeyboardInterrupt),
        (_through_cause, Terminated),
        (_beside_a_cause, KeyboardInterrupt),
        (_in_a_cycle, ValueError),
        (_on_its_own, InputError),
    ],
)
def test_an_error_over_an_interruption_is_the_interruption(fails, wanted):
    with pytest.raises(BaseException) as end, interruptions_first():
        fails()
    assert end.type is wanted


@pytest.mark.parametrize("fails", [_in_a_cycle, _on_its_own])
def test_an_interruption_that_somebody_handles_is_over(fails):
    """ "Training was stopped; now prune": whatever fails there has the old Ctrl-C as its context."""
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        with pytest.raises(ValueError), interruptions_first():
            fails()


def test_an_error_is_kept_as_an_answer_but_no_interruption():
    with errors_kept(ValueError) as failure:
        _on_its_own()
    assert str(failure.error) == "the model cannot be loaded"
    with errors_kept(ValueError) as failure:
        pass
    assert failure.error is None
    with pytest.raises(KeyError), errors_kept(ValueError):
        raise KeyError
    for fails in (_through_context, _through_cause, _beside_a_cause):
        with pytest.raises(KeyboardInterrupt), errors_kept():
            fails()


def test_ctrl_c_while_a_meta_model_is_built_is_no_refusal(monkeypatch):
    model = holds.build(FAMILIES["llava_qwen2"], "sdpa")
    dense = DenseModel.of(model, locate(model))
    monkeypatch.setattr("lmms_topoprune.surgery.dense_model.build_meta_model", interrupted)
    with pytest.raises(KeyboardInterrupt):
        dense.pruned_meta_model((0,))


def test_ctrl_c_while_a_prompt_is_worded_is_no_other_form(monkeypatch):
    monkeypatch.setattr(Prompter, "_render", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Prompter(SimpleNamespace(tokenizer=None))._worded("Describe it.", "a form", "another")


def test_ctrl_c_is_seen_through_by_what_lmms_eval_calls():
    with pytest.raises(KeyboardInterrupt), one_sentence():
        interrupted()


def test_somebody_elses_handler_stays(monkeypatch):
    seen = []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append(True))
    try:
        with stoppable():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen


def test_exit_codes_of_the_command_line(monkeypatch, capsys):
    from lmms_topoprune.cli import lists
    from lmms_topoprune.cli import main as cli

    for number, code, word in ((signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")):
        monkeypatch.setattr(lists, "shared_path", lambda _, number=number: os.kill(os.getpid(), number))
        with pytest.raises(SystemExit) as end:
            cli.main(["tasks"])
        assert end.value.code == code
        assert capsys.readouterr().err.strip() == f"topoprune: {word}"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_line_sees_through_a_failed_clean_up(number, monkeypatch, capsys):
    from lmms_topoprune.cli import lists
    from lmms_topoprune.cli import main as cli

    def stopped(_: str) -> None:
        try:
            os.kill(os.getpid(), number)
            time.sleep(1)
        finally:
            _on_its_own()

    monkeypatch.setattr(lists, "shared_path", stopped)
    with pytest.raises(SystemExit) as end:
        cli.main(["tasks"])
    assert end.value.code == 128 + number
    assert "Traceback" not in capsys.readouterr().err
