"""Lists of one line each, tables on narrow terminals, what a shell completes, plans that drop nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from lmms_topoprune import families, registry
from lmms_topoprune.cli.main import COMMANDS
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.plan import PruningPlan


def test_criteria_are_listed_one_a_line(topoprune):
    code, out, _ = topoprune("criteria")
    assert code == 0
    lines = out.splitlines()
    assert [line.split()[0] for line in lines] == list(registry.criterion_names())
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines if "default" in line] == [PruningOptions().criterion]


def test_criteria_as_json_tell_their_papers(topoprune):
    _, out, _ = topoprune("criteria", "--json")
    found = {each["name"]: each for each in json.loads(out)}
    combined = found["topology_angle_influence"]["papers"]
    assert len(combined) == 3 and all(place.startswith("https://arxiv.org/") for place in combined.values())
    assert found["greedy"]["defaults"] == {"samples": 64} and found["greedy"]["loss"]


def test_models_are_listed_one_a_line(topoprune):
    _, few, _ = topoprune("models")
    _, everything, _ = topoprune("models", "--all")
    assert [line.split()[0] for line in few.splitlines()] == list(families.listed())
    assert len(everything.splitlines()) == len(families.registered())
    assert max(map(len, few.splitlines())) <= 80


def completed(*words: str) -> list[str]:
    """What bash would offer for the last word."""
    environment = {
        **os.environ,
        "COMP_WORDS": " ".join(["topoprune", *words]),
        "COMP_CWORD": str(len(words)),
        "_TOPOPRUNE_COMPLETE": "bash_complete",
    }
    code = "import sys; sys.argv = ['topoprune']; from lmms_topoprune.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert "Traceback" not in done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("cri",), {"plain,criteria"}),
        (("plan", "--criterion", "cos"), {"plain,cosine"}),
        (("plan", "--criterion", "my_fi"), {"file,my_fi"}),
        (("sweep", "--criteria", "topology,block"), {"plain,topology,block_influence"}),
        (("sweep", "--model", "gem"), {"plain,gemma3"}),
        (("sweep", "--tasks", "topoprune_v"), {"plain,topoprune_vqa"}),
        (("plan", "--repair", "li"), {"plain,linear"}),
        (("plan", "--token", "mean_i"), {"plain,mean_image"}),
        (("export", "--plan", "pl"), {"file,pl"}),
        (("eval", "--model", "topopruned_gem"), {"plain,topopruned_gemma3"}),
        (("nonsense", "--x"), set()),
    ],
)
def test_a_shell_completes_values(words, expected):
    found = set(completed(*words))
    assert found == expected or (expected and expected <= found and len(expected) == 1)


def test_a_plan_that_drops_nothing_suggests(topoprune, model_folder):
    code, _, err = topoprune("plan", "--pretrained", model_folder)
    assert code == 0 and "WARNING: no layer would go: sparsity is 0; pass sparsity=0.3" in err
    _, _, err = topoprune("plan", "--pretrained", model_folder, "--sparsity", "0.01", "--criterion", "last_n")
    assert "sparsity is 0.01, which is less than half of one of 6" in err
    _, _, err = topoprune("plan", "--pretrained", model_folder, "--criterion", "dense")
    assert "No layer" not in err


def test_a_folder_that_is_not_empty_is_refused_in_the_commands_own_words(topoprune, tmp_path, model_folder):
    plan = tmp_path / "plan.json"
    topoprune("plan", "--pretrained", model_folder, "--layers", "2", "-o", plan)
    code, _, err = topoprune("export", "--pretrained", model_folder, "--plan", plan, "-o", tmp_path)
    assert code == 2 and "pass another one, or --overwrite" in err and "overwrite=True" not in err


PRETRAINED = "--pretrained nobody/nothing-at-all"
# A mistake -> the code it ends with, what is said, and commands that can make it.
MISTAKES: dict[str, tuple[int, str, tuple[str, ...]]] = {
    "an unknown option": (
        2,
        "No such option",
        tuple(f"{name} --bogus" for name in COMMANDS if name != "eval"),
    ),
    "an unknown criterion": (
        2,
        "criterion is 'topologie'.* did you mean 'topology'",
        (
            "plan --criterion topologie",
            "score --criteria topologie",
            "sweep --criteria topologie -o out",
        ),
    ),
    "nothing at a path": (
        2,
        "nowhere",
        (
            "compare nowhere",
            "report nowhere",
            "leaderboard nowhere",
            "publish nowhere",
            "regress nowhere --baseline nowhere",
            "export --plan nowhere -o out",
            "plan --sparsity 0.3 --calibration nowhere",
            "score --calibration nowhere",
            "sweep --calibration nowhere -o log",
        ),
    ),
    "an output below a file": (
        2,
        "'file|'nowhere' does not exist",
        (
            "plan --sparsity 0.3 -o file/x",
            "score -o file/x",
            "sweep -o file/x",
            "demo -o file/x",
            "export --plan plan.json -o file/x",
            "compare nowhere -o file/x.md",
            "report nowhere -o file/x.html",
            "leaderboard nowhere -o file/x.md",
            "publish nowhere -o file/x.json",
            "regress nowhere --junit file/x --baseline nowhere",
        ),
    ),
    "a hub out of reach": (
        3,
        "nobody/nothing-at-all",
        (
            f"plan {PRETRAINED} --sparsity 0.3",
            f"score {PRETRAINED}",
            f"sweep {PRETRAINED} -o log",
            f"export {PRETRAINED} --plan plan.json -o out",
        ),
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_one_mistake_ends_with_one_code_in_every_command(topoprune, mistake, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    PruningPlan("tiny", "f" * 16, 6, (2,), "given").save(tmp_path / "plan.json")
    wanted, words, commands = MISTAKES[mistake]
    for command in commands:
        code, _, err = topoprune(*command.split())
        assert (command, code) == (command, wanted), err
        assert re.search(words, err) and "Traceback" not in err, f"{command}: {err}"
    assert {path.name for path in tmp_path.iterdir()} - {"log"} == {"file", "plan.json"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--model", "topoprund_llava"), "model is 'topoprund_llava'; .* did you mean 'topopruned_llava'?"),
        (("--model", "topopruned_llava", "--model_args", "criterion=topologie"), "did you mean 'topology'?"),
    ],
)
def test_the_same_in_an_evaluation(arguments, sentence, tmp_path):
    command = [
        sys.executable,
        "-m",
        "lmms_topoprune.cli.main",
        "eval",
        *arguments,
        "--tasks",
        "topoprune_vqa",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert sentence.partition(";")[0] in last and "Traceback" not in done.stderr


MANY = (
    "topology_angle_influence",
    "topology",
    "block_influence",
    "gardinazzi",
    "relative_magnitude",
    "reverse:cosine",
)


@pytest.mark.parametrize("terminal", [True, False])
def test_scores_are_whole_however_narrow_the_terminal(terminal, monkeypatch, capsys):
    """On 80 columns in several tables; where nobody looks in one, without colours."""
    import rich.console

    from lmms_topoprune.cli import score

    class Terminal(rich.console.Console):
        def __init__(self, **given: int) -> None:
            super().__init__(force_terminal=terminal, **{"width": 80, **given})

    monkeypatch.setattr(rich.console, "Console", Terminal)
    plans = {name: SimpleNamespace(layers=2, scores=[-12.25, 0.5], dropped=(0,)) for name in MANY}
    score._show(plans, 0.3)
    out = capsys.readouterr().out
    assert all(name in out for name in MANY) and out.count("-12.2500*") == len(MANY) and "…" not in out
    assert ("\x1b[" in out) is terminal
    if terminal:
        plain = re.sub(r"\x1b\[[0-9;]*m", "", out)
        assert max(map(len, plain.splitlines())) <= 80
