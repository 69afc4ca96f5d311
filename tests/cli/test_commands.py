"""Commands that need no evaluation, and how mistakes end."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lmms_topoprune.calibration.states_file import SavedStates
from lmms_topoprune.cli.evaluate import lmms_eval_arguments
from lmms_topoprune.cli.main import COMMANDS, main
from lmms_topoprune.cli.shared import given
from lmms_topoprune.errors import (
    GenerationError,
    InputError,
    MissingExtraError,
    SurgeryError,
    UnreachableError,
)
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.pipeline import calibrate
from lmms_topoprune.plan import PruningPlan
from lmms_topoprune.sweep.grid import questions


def test_help_of_the_group_fits_a_terminal_and_names_every_command(topoprune):
    _, out, _ = topoprune("--help")
    assert max(map(len, out.splitlines())) <= 80 and all(f"  {name} " in out for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help_with_an_example(topoprune, name):
    code, out, _ = topoprune(name, "--help")
    assert code == 0 and max(map(len, out.splitlines())) <= 80
    assert "Usage: topoprune" in out and (name in ("doctor",) or "topoprune " in out.partition("\n\n")[2])


def test_the_demo_of_every_question_asks_all_of_them(topoprune):
    (limit,) = re.findall(r"--limit (\S+) .*# every question", topoprune("demo", "--help")[1])
    assert questions(float(limit)) is None


def test_help_imports_nothing_heavy():
    script = (
        "import sys; from lmms_topoprune.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'numpy', 'transformers', 'lmms_eval', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")


def test_help_is_quick():
    """In processor time, which a busy machine does not change."""
    before = os.times()
    subprocess.run(
        [sys.executable, "-m", "lmms_topoprune.cli.main", "--help"], check=True, capture_output=True
    )
    after = os.times()
    assert sum(after[2:4]) - sum(before[2:4]) < 0.5


def test_unknown_command_and_option(topoprune):
    code, _, err = topoprune("swep")
    assert code == 2 and "did you mean 'sweep'?" in err
    code, _, err = topoprune("tasks", "--bogus")
    assert code == 2 and "No such option" in err
    code, _, err = topoprune("sweep", "--criteria", "topolgy", "-o", "x")
    assert code == 2 and err.startswith("topoprune: criterion is 'topolgy'") and "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sweep", "-o", "x", "--sparsities", "1.5"], "sparsity is 1.5"),
        (["sweep", "-o", "x", "--sparsities", "a"], "sparsities is 'a'"),
        (["sweep", "-o", "x", "--seeds", ","], "seeds is ','"),
        (["sweep", "-o", "x", "--criteria", "dense"], "criterion is 'dense'"),
        (["sweep", "-o", "x", "--workers", "0"], "workers is 0"),
        (["sweep", "-o", "x", "--limit", "nan"], "limit is nan"),
        (["sweep", "-o", "file/x"], "is no folder"),
        (["sweep", "-o", "x", "--criteria", "topology:selction=block"], "did you mean 'selection'"),
        (["demo", "-o", "file"], "is no folder"),
        (["plan", "--sparsity", "0.3", "-o", "folder"], "it is a folder"),
        (["score", "-o", "file/scores.json"], "is no folder"),
        (["score", "--states", "file"], "states is 'file', which cannot be written"),
        (["score", "--criteria", "topology:k=x"], "k is 'x'"),
        (["compare", "nowhere"], "does not exist"),
        (["regress", "nowhere"], "baseline is missing"),
        (["regress", "nowhere", "--tolerance", "-1"], "tolerance is -1; allowed: 0 <= tolerance < 100, in p"),
        (["regress", "nowhere", "--tolerance", "nan"], "tolerance is nan"),
        (
            ["regress", "nowhere", "--junit", "a", "--summary", "folder/../a"],
            "summary is 'folder/../a', where",
        ),
        (["compare", ""], "folders is ''; allowed: a path"),
        (["report", ""], "folders is ''; allowed: a path"),
        (["regress", " ", "--baseline", "x"], "run is ' '; allowed: a path"),
        (["regress", "nowhere", "--save-baseline", ""], "save_baseline is ''; allowed: a path"),
        *(([name, "-o", ""], "output is ''; allowed: a path") for name in ("score", "plan", "sweep", "demo")),
        (["export", "--plan", "x", "-o", ""], "output is ''; allowed: a path"),
        (["report", "nowhere", "-o", ""], "output is ''; allowed: a path"),
        (["compare", "nowhere", "-o", ""], "output is ''; allowed: a path"),
        (["eval", "--output_path", ""], "output_path is ''; allowed: a path"),
        (["compare", "nowhere", "--seed", "-1"], "seed is -1; allowed: whole numbers from 0"),
        (["regress", "nowhere", "--seed", "-1"], "seed is -1; allowed: whole numbers from 0"),
        (["plan", "--sparsity", "0.3", "--layers", "3"], "sparsity and layers are given together"),
        (["plan", "--pretrained", "no/such/place"], "pretrained"),
        (["export", "--plan", "nowhere.json", "-o", "x"], "nowhere.json"),
    ],
)
def test_a_mistake_is_one_sentence(topoprune, arguments, words, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    code, _, err = topoprune(*arguments)
    assert code in (2, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"], "nothing was written"
    last = err.strip().splitlines()[-1]
    assert last.startswith("topoprune: ") and words in last
    assert "Traceback" not in err


@pytest.mark.parametrize("variable", ["RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_PORT"])
@pytest.mark.parametrize("command", ["eval", "sweep", "heal", "plan", "compare"])
def test_what_no_launcher_sets_is_refused_by_every_command(topoprune, monkeypatch, command, variable):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv(variable, "abc")
    code, _, err = topoprune(command, "nowhere")
    assert (code, err) == (
        2,
        f"topoprune: the environment variable {variable} is 'abc'; allowed: a whole number from 0 on\n",
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_given_under_any_launcher(topoprune, monkeypatch, command):
    monkeypatch.setenv("RANK", "abc")
    code, out, err = topoprune(command, "--help")
    assert (code, err) == (0, "") and out.startswith(f"Usage: topoprune {command}")


def test_a_port_that_no_launcher_set_is_nobodys_business(topoprune, monkeypatch):
    """Kubernetes names a service called master like this, in every container."""
    monkeypatch.setenv("MASTER_PORT", "tcp://10.0.0.1:80")
    monkeypatch.setenv("LOCAL_RANK", "-1")
    assert topoprune("criteria")[0] == 0


def test_errors_as_json(topoprune):
    code, out, _ = topoprune("compare", "nowhere", "--json")
    assert code == 2
    assert json.loads(out)["kind"] == "InputError"
    code, out, _ = topoprune("sweep", "--json", "--bogus")
    assert code == 2 and json.loads(out)["kind"] == "NoSuchOption"


def test_without_ray_a_sweep_on_a_cluster_is_refused(topoprune, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    code, _, err = topoprune("sweep", "--ray", "-o", tmp_path / "out")
    assert code == 3 and err.endswith("install it in the clone with: pip install '.[ray]'\n")


def test_a_defect_is_no_failed_check(topoprune, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("it")

    monkeypatch.setattr("lmms_topoprune.sweep.run_folders.read_runs", broken)
    code, out, err = topoprune("compare", "nowhere", "--json")
    assert (
        code == 70 and "Traceback" in err and json.loads(out) == {"error": "it", "kind": "ZeroDivisionError"}
    )


def test_a_fault_in_code_of_ones_own_is_no_defect(topoprune, model_folder, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def score(layers):\n    return 1 // 0\n")
    wanted = ("--pretrained", model_folder, "--sparsity", 0.4, "-o", tmp_path / "plan.json", "--json")
    code, out, err = topoprune("plan", "--criterion", f"{file}:score", *wanted)
    sentence = f"criterion '{file}:score', line 1 of {file}, failed: ZeroDivisionError: "
    assert code == 2 and json.loads(out)["kind"] == "OwnCodeError"
    trace, _, told = err.partition("Traceback (most recent call last):\n")[2].partition("\ntopoprune: ")
    assert trace.splitlines()[0] == f'  File "{file}", line 2, in score' and told.startswith(sentence)
    assert trace.splitlines()[-1].startswith("ZeroDivisionError: ")


def test_exit_codes():
    assert [kind("x").exit_code for kind in (InputError, UnreachableError, MissingExtraError)] == [2, 3, 3]
    assert [kind("x").exit_code for kind in (SurgeryError, GenerationError)] == [4, 4]


def test_tasks(topoprune):
    code, out, _ = topoprune("tasks", "--json")
    found = json.loads(out)
    assert code == 0 and found["tasks"]["topoprune"] == "group"
    assert topoprune("tasks", "--path")[1].strip() == found["folder"]


def test_eval_adds_the_tasks_folder_once(topoprune):
    folder = topoprune("tasks", "--path")[1].strip()
    assert lmms_eval_arguments(("--tasks", "mme"))[-2:] == ["--include_path", folder]
    assert lmms_eval_arguments(("--include_path", "mine"))[-2:] == ["--include_path", "mine"]
    for folder in ("--include_path=mine", "--include=mine"):  # argparse takes abbreviations
        assert lmms_eval_arguments((folder,)) == [folder]


def test_every_pruning_option_is_on_the_command_line(topoprune):
    out = topoprune("plan", "--help")[1]
    for name in set(PruningOptions.names()) - {"plan", "on_error", "self_test"}:
        assert f"--{name.replace('_', '-')}" in out


def test_only_what_was_written_down_is_given():
    assert given({"sparsity": 0.2, "k": None, "output": "x"}) == {"sparsity": 0.2}


def test_plan_score_and_export(topoprune, model_folder, tmp_path):
    common = ("--pretrained", model_folder, "--samples", 16, "--sparsity", 0.4)
    code, out, _ = topoprune("plan", *common, "--criterion", "cosine", "-o", tmp_path / "plan.json", "--json")
    plan = PruningPlan.load(tmp_path / "plan.json")
    assert code == 0 and json.loads(out)["dropped"] == list(plan.dropped) and len(plan.dropped) == 2
    code, out, _ = topoprune("score", *common, "--criteria", "cosine,last_n", "--json")
    scored = json.loads(out)["plans"]
    assert code == 0 and scored["cosine"]["hash"] == plan.hash
    assert scored["last_n"]["dropped"] == [3, 4]
    target = (
        "export",
        "--pretrained",
        model_folder,
        "--plan",
        tmp_path / "plan.json",
        "-o",
        tmp_path / "out",
    )
    code, out, _ = topoprune(*target, "--json")
    assert code == 0 and json.loads(out)["layers"] == 4
    code, _, err = topoprune(*target)
    assert code == 2 and "not empty" in err


def test_score_keeps_the_hidden_states(topoprune, model_folder, tmp_path, monkeypatch):
    common = ("--pretrained", model_folder, "--samples", 16, "--states", tmp_path / "kept", "--json")
    code, out, _ = topoprune("score", "--criteria", "cosine", *common)
    (path,) = json.loads(out)["states"]
    assert code == 0 and SavedStates.load(Path(path)).states["residual"].values.shape == (7, 16, 32)
    monkeypatch.setattr(calibrate, "collect_views", lambda *_, **__: pytest.fail("calibrated again"))
    code, out, _ = topoprune("score", "--criteria", "gardinazzi,block_influence", "--k", "4", *common)
    found = json.loads(out)
    assert code == 0 and found["states"] == [path]
    assert len(set(found["plans"]["block_influence"]["scores"])) == 6


def test_doctor(topoprune):
    before = logging.root.manager.disable
    _, out, _ = topoprune("doctor", "--json")
    assert logging.root.manager.disable == before
    findings = {finding["what"]: finding for finding in json.loads(out)["findings"]}
    for what in ("lmms-eval", "entry point", "registered with lmms-eval", "embedded tasks"):
        assert findings[what]["works"], findings[what]
    assert any(what.startswith("family llava") and f["works"] for what, f in findings.items())


def test_doctor_fails_when_the_registration_does(topoprune, monkeypatch):
    from lmms_topoprune.harness import listing

    monkeypatch.setattr(listing, "list_available_models", lambda **_: ["llava_hf"])
    code, out, _ = topoprune("doctor")
    assert code == 1 and "FAIL registered with lmms-eval: missing:" in out


def test_interrupted(monkeypatch, capsys):
    from lmms_topoprune.cli import lists

    def stop() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(lists, "shared_path", lambda name: stop())
    with pytest.raises(SystemExit) as end:
        main(["tasks"])
    assert end.value.code == 130
    assert "interrupted" in capsys.readouterr().err
