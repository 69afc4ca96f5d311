"""`topoprune eval --json`: stdout is one JSON object, whatever lmms-eval prints."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys

import lmms_eval.__main__
import lmms_eval.tasks
import pytest
from lmms_eval.tasks import TaskManager
from loguru import logger

from lmms_topoprune._util.packaged import shared_path
from lmms_topoprune.cli.evaluate import _needs_model, _outcome_told
from lmms_topoprune.compat.evaluation import colors_on_screens_only
from lmms_topoprune.harness import listing


class OwnTasks(TaskManager):
    def __init__(self, verbosity="INFO", include_path=None, include_defaults=True, model_name=None) -> None:
        super().__init__(verbosity, include_path, False, model_name)


@pytest.fixture
def evaluate(topoprune, model_folder, monkeypatch):
    """evaluate("sparsity=0.3") -> exit code, stdout, stderr; lmms-eval's two thousand tasks are left out."""
    for module in (lmms_eval.tasks, lmms_eval.__main__, listing):
        monkeypatch.setattr(module, "TaskManager", OwnTasks)
    monkeypatch.setattr(sys, "argv", [])

    def run(model_args, *more, tasks="topoprune_yesno"):
        arguments = ("--model", "topopruned_llava", "--model_args", f"pretrained={model_folder},{model_args}")
        return topoprune("eval", *arguments, "--tasks", tasks, "--limit", 2, "--batch_size", 2, *more)

    return run


@pytest.fixture
def evaluate_json(evaluate):
    def run(*given, **named):
        code, out, err = evaluate(*given, "--json", **named)
        return code, json.loads(out), err

    return run


@pytest.mark.slow
@pytest.mark.parametrize("output", [None, "--output"])
def test_results_and_plan(evaluate_json, tmp_path, output):
    """lmms-eval takes its options abbreviated, too; what it is told to keep is kept."""
    more = (output, tmp_path / "out", "--log_samples") if output else ()
    code, found, err = evaluate_json("sparsity=0.3,samples=16", *more)
    assert code == 0, err
    (run,) = found["runs"]
    assert 0 <= run["results"]["topoprune_yesno"]["accuracy,none"] <= 1
    assert len(run["plan"]["dropped"]) == 2
    assert "|topoprune_yesno" in err  # the table is still there for whoever looks
    files = [str(file) for file in (tmp_path / "out").rglob("*_results.json")]
    assert [run["file"]] == (files if output else [None])
    plans = [json.loads(file.read_text()) for file in (tmp_path / "out").rglob("*_plan.json")]
    assert [plan["hash"] for plan in plans] == [run["plan"]["hash"]] * len(files)


def test_a_mistake_is_json_too(evaluate_json):
    code, found, err = evaluate_json("sparsity=3")
    assert code == 2 and "sparsity is 3.0; allowed" in found["error"]
    assert "Traceback" not in err


def test_nothing_evaluated_is_no_success(evaluate_json):
    code, found, _ = evaluate_json("sparsity=0.3", tasks="no_such_task")
    assert code == 2 and "task is 'no_such_task'; allowed: the " in found["error"]
    code, found, _ = evaluate_json("sparsity=0.3", "--log_samples")  # without a folder
    assert code == 1 and "evaluated nothing" in found["error"]


@pytest.mark.parametrize(
    ("tasks", "code", "sentence"),
    [
        ("topoprune_vqb", 2, "task is 'topoprune_vqb'; allowed: .*did you mean 'topoprune_vqa'"),
        ("list", 0, "$"),
    ],
)
def test_without_json_it_is_no_success_either(evaluate, tasks, code, sentence):
    found, _, err = evaluate("layers=1", tasks=tasks)
    assert found == code, err
    assert re.search(sentence, err) and "Traceback" not in err


def test_tasks_that_are_not_embedded_are_indexed_once(evaluate, tmp_path, monkeypatch):
    """By the check beforehand; lmms-eval, which then finds no folder for its samples, gets that index."""
    shutil.copytree(shared_path("tasks"), tmp_path / "tasks")
    (tmp_path / "tasks" / "mine.yaml").write_text("group: mine\ntask: [topoprune_yesno]\n")
    made, read, initialize = [], [], TaskManager.__init__
    monkeypatch.setattr(TaskManager, "__init__", lambda self, *a: initialize(self, *a) or made.append(self))
    walk = TaskManager._get_task_and_group
    monkeypatch.setattr(
        TaskManager, "_get_task_and_group", lambda self, path: read.append(path) or walk(self, path)
    )
    code, _, err = evaluate("layers=1", "--include_path", tmp_path / "tasks", "--log_samples", tasks="mine")
    assert code == 1 and "lmms-eval evaluated nothing" in err
    assert read == [str(tmp_path / "tasks")]
    assert [each.match_tasks(["mine"]) for each in made] == [["mine"]] * 2
    assert made[0].task_index == made[1].task_index and made[0].task_index is not made[1].task_index


def test_a_folder_that_cannot_be_written_is_refused_at_once(evaluate_json, tmp_path):
    (tmp_path / "file").touch()
    for given in (("--output_path", tmp_path / "file"), (f"--output_path={tmp_path / 'file'}",)):
        code, found, err = evaluate_json("layers=1", *given)
        assert code == 2 and "output_path is" in found["error"] and "Responding" not in err


def test_results_that_cannot_be_kept_are_no_success(evaluate_json, tmp_path):
    """lmms-eval itself only warns. Abbreviated, the option is not seen beforehand."""
    (tmp_path / "file").touch()
    code, found, _ = evaluate_json("layers=1", "--output", tmp_path / "file")
    assert code == 1 and "could not be written" in found["error"] and len(found["runs"]) == 1


def test_a_list_of_settings_with_a_bad_entry_goes_on_and_is_no_success(
    topoprune, evaluate, model_folder, tmp_path
):
    """lmms-eval goes on after it, and ends with 0."""
    shared = {"model": "topopruned_llava", "tasks": "topoprune_yesno", "limit": 2, "batch_size": 2}
    entries = [
        {**shared, "model_args": f"pretrained={model_folder},{more}"} for more in ("layers=1", "sparsity=3")
    ]
    for option, order in (("--config", entries), ("--con", entries[::-1]), ("--config", entries[:1])):
        (tmp_path / "settings.yaml").write_text(json.dumps(order))
        code, out, err = topoprune("eval", option, tmp_path / "settings.yaml", "--json")
        found = json.loads(out)
        assert len(found["runs"]) == 1 and code == len(order) - 1, err
        assert found.get("error", "").startswith("1 of 2 evaluations") is (len(order) == 2)
        assert len(order) == 1 or "sparsity is 3.0; allowed" in err


def test_a_run_without_a_model_is_told_which_to_pass(topoprune):
    """lmms-eval's own default is a model that it does not have."""
    code, out, err = topoprune("eval", "--tasks", "topoprune")
    assert code == 2 and "--model is left out" in err and "Traceback" not in err and not out


@pytest.mark.parametrize(
    ("arguments", "needs"),
    [
        (["--tasks", "mme"], True),
        (["--tasks=mme", "--limit", "2"], True),
        (["--tasks", "list"], False),
        (["--config", "settings.yaml"], False),
        (["--tasks", "mme", "--config=settings.yaml"], False),
        (["--tasks", "mme", "--con", "settings.yaml"], False),
        ([], False),
    ],
)
def test_a_file_of_settings_and_a_list_need_no_model(arguments, needs):
    assert _needs_model(arguments) is needs


def test_a_folder_of_tasks_that_is_none_is_named_itself(evaluate, tmp_path):
    """Without it its tasks are unknown, which is not the mistake."""
    code, _, err = evaluate("layers=1", "--include_path", tmp_path / "nowhere", tasks="mine")
    assert code == 2 and "nowhere', which is no folder" in err and "Traceback" not in err
    code, _, err = evaluate("layers=1", "--include_path", tmp_path, tasks="mine")
    assert code == 2 and "task is 'mine'" in err and ",  among" not in err


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "no_color", "colored"),
    [(io.StringIO, False, False), (Screen, False, True), (Screen, True, False)],
)
def test_the_log_of_lmms_eval_is_colored_on_a_screen_alone(stream, no_color, colored, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1") if no_color else monkeypatch.delenv("NO_COLOR", raising=False)
    out = stream()
    with colors_on_screens_only():
        sink = logger.add(out, colorize=True, format="<green>{message}</green>")  # as lmms-eval does
    logger.info("hello")
    logger.remove(sink)
    assert out.getvalue() == ("\x1b[32mhello\x1b[0m\n" if colored else "hello\n")


def test_other_ranks_are_silent(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with _outcome_told([], as_json=True):
        print("a table")
    assert capsys.readouterr().out == ""
