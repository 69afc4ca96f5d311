"""plugin.toml, other packages and files decide which models lmms-eval knows; a broken one hides no other."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lmms_topoprune import families, registry
from lmms_topoprune.families import listed, registered
from lmms_topoprune.harness.manifests import manifests

PROMISED = (
    "topopruned_llava",
    "cosine_pruned_llava",
    "block_influence_pruned_llava",
    "angular_pruned_llava",
    "random_pruned_llava",
    "dense_llava",
)
UNUSUAL = ("greedy_pruned_llava", "topovlm_pruned_gemma3", "shuffled_pruned_qwen3_vl")


@pytest.fixture
def families_file(tmp_path, monkeypatch):
    """Writes a file of families, and names it in the environment."""

    def write(text: str) -> Path:
        path = tmp_path / "families.toml"
        path.write_text(text)
        monkeypatch.setenv(families.VARIABLE, str(path))
        return path

    return write


def test_the_promised_models_are_listed():
    assert set(PROMISED) <= set(listed())


def test_every_criterion_has_a_model_in_every_family_but_lists_show_few():
    everything, shown = registered(), listed()
    assert set(shown) | set(UNUSUAL) <= set(everything)
    assert not set(UNUSUAL) & set(shown)
    assert len(shown) == len(families.families()) * len(registry.declarations()["models"])
    found = {(model.criterion, model.wraps) for model in everything.values()}
    wrapped = {family.wraps for family in families.families().values()}
    assert found == {(name, wraps) for name in registry.criterion_names() for wraps in wrapped}


@pytest.mark.parametrize("name", [*PROMISED, UNUSUAL[0]])
def test_class_paths_resolve_to_what_lmms_eval_accepts(name):
    from lmms_eval.models import MODEL_REGISTRY_V2

    for simple in (True, False):
        found = MODEL_REGISTRY_V2.get_model_class(name, force_simple=simple)
        assert found.is_simple is simple
        assert importlib.import_module(found.__module__) is not None


def test_only_declared_classes_exist():
    module = importlib.import_module("lmms_topoprune.harness.classes")
    for name in ("topopruned_lava_chat", "topopruned_llava_other", "topopruned_llava"):
        with pytest.raises(AttributeError):
            getattr(module, name)


def test_lmms_eval_lists_the_usual_models_without_torch():
    code = (
        "import sys; sys.argv = ['lmms-eval', 'models']\n"
        "from lmms_eval.cli.dispatch import main; main()\n"
        "print('torch' in sys.modules)"
    )
    text = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    ).stdout
    assert all(f"\n{name}" in text for name in PROMISED)
    assert not any(f"\n{name}" in text for name in UNUSUAL)
    assert text.rstrip().endswith("False")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[families.mine", "is not valid TOML"),
        ("[families.mine]\nwrap = 'llava_hf'", r"\[families.mine\] lacks 'wraps'"),
        (
            "[families.mine]\nwraps = 'llava_hf'\nwarps = 1",
            "has 'warps'; allowed: generation, wraps; did you mean",
        ),
        ("[families.mine]\nwraps = 'llava_hf'\ngeneration = 3", "has generation = 3; allowed: text"),
        ("[other]\n", "declares no families"),
    ],
)
def test_a_broken_file_of_families_is_named_and_hides_no_model(families_file, text, sentence):
    path = families_file(text)
    assert len(families.problems()) == 1
    assert str(path) in families.problems()[0] and re.search(sentence, families.problems()[0])
    assert set(PROMISED) <= {manifest.model_id for manifest in manifests()}


def test_a_broken_family_hides_no_other_of_its_file(families_file):
    families_file("[families.typo]\nwrap = 'llava_hf'\n[families.mine]\nwraps = 'gemma3'")
    assert "mine" in families.families() and "typo" not in families.families()
    assert len(families.problems()) == 1 and "[families.typo] lacks 'wraps'" in families.problems()[0]


def test_a_missing_file_of_families_is_named(monkeypatch, tmp_path):
    file = str(tmp_path / "none.toml")
    monkeypatch.setenv(families.VARIABLE, file)
    sentence = f"TOPOPRUNE_FAMILIES is {file!r}: {file!r} cannot be read: No such file or directory"
    assert families.problems() == [sentence]


def test_a_family_whose_wrapper_is_missing_takes_no_other_model_down(families_file, caplog):
    families_file("[families.gone]\nwraps = 'llava_hff'\n[families.mine]\nwraps = 'gemma3'")
    found = {manifest.model_id: manifest for manifest in manifests()}
    assert "topopruned_gone" not in found
    assert (
        "family 'gone' wraps 'llava_hff', which lmms-eval does not have; did you mean 'llava_hf'?"
        in caplog.text
    )
    assert set(PROMISED) <= set(found)
    assert found["topopruned_mine"].chat_class_path is None
    assert found["topopruned_mine"].simple_class_path.endswith(".topopruned_mine_simple")


def test_a_family_declared_twice_counts_once(families_file):
    families_file("[families.llava]\nwraps = 'gemma3'")
    assert families.families()["llava"].wraps == "llava_hf"
    assert "family 'llava' is declared twice" in families.problems()[0]


@pytest.mark.slow
def test_a_file_of_families_reaches_lmms_eval(families_file):
    path = families_file("[families.mine]\nwraps = 'llava_hf'\ngeneration = 'answers.py:Answers'")
    (path.parent / "answers.py").write_text(
        "from lmms_topoprune.harness.guarded import GuardedGeneration\n"
        "class Answers(GuardedGeneration):\n    mine = True\n"
    )
    code = (
        "from lmms_eval.models import get_model\n"
        "found = get_model('cosine_pruned_mine')\n"
        "print(found.mine, found.registered.wraps, found.registered.criterion)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=path.parent, env={**os.environ}
    )
    assert run.stdout.split() == ["True", "llava_hf", "cosine"], run.stderr
