"""plugin.toml alone decides which models lmms-eval knows; a broken one says so."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from lmms_topoprune._util.packaged import shared_path
from lmms_topoprune.errors import InputError
from lmms_topoprune.registration import declarations, manifests, registered

PROMISED = (
    "topopruned_llava",
    "cosine_pruned_llava",
    "block_influence_pruned_llava",
    "angular_pruned_llava",
    "random_pruned_llava",
    "dense_llava",
)


def test_the_promised_models_are_registered():
    assert set(PROMISED) <= set(registered())


def test_every_criterion_with_a_prefix_meets_every_family():
    data = declarations()
    prefixes = {rule["prefix"] for rule in data["criteria"].values() if rule.get("prefix")}
    assert set(registered()) == {f"{p}_{family}" for p in prefixes for family in data["families"]}


def test_class_paths_resolve_to_what_lmms_eval_accepts():
    from lmms_eval.models import MODEL_REGISTRY_V2

    for name in PROMISED:
        for simple in (True, False):
            found = MODEL_REGISTRY_V2.get_model_class(name, force_simple=simple)
            assert found.is_simple is simple
            assert importlib.import_module(found.__module__) is not None


def test_only_declared_classes_exist():
    module = importlib.import_module("lmms_topoprune.harness.classes")
    for name in ("topopruned_lava_chat", "topopruned_llava_other", "topopruned_llava"):
        with pytest.raises(AttributeError):
            getattr(module, name)


def test_lmms_eval_lists_the_models_without_torch():
    code = (
        "import sys; sys.argv = ['lmms-eval', 'models']\n"
        "from lmms_eval.cli.dispatch import main; main()\n"
        "print('torch' in sys.modules)"
    )
    text = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    ).stdout
    assert all(f"\n{name}" in text for name in PROMISED)
    assert text.rstrip().endswith("False")


def changed(tmp_path: Path, old: str, new: str) -> Path:
    text = shared_path("plugin.toml").read_text()
    assert old in text
    path = tmp_path / "plugin.toml"
    path.write_text(text.replace(old, new, 1))
    return path


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("[families.llava]", "[families.llava", "is not valid TOML"),
        ('wraps = "llava_hf"', 'wrap = "llava_hf"', r"\[families.llava\] lacks 'wraps'"),
        (
            'wraps = "llava_hf"',
            'wraps = "llava_hff"',
            "wraps 'llava_hff', which lmms-eval does not have; did you mean",
        ),
        (
            'wraps = "llava_hf"',
            'wraps = "llava_hf"\nwarps = 1',
            "has 'warps'; allowed: generation, wraps; did you mean",
        ),
        ('prefix = "cosine_pruned"', 'prefix = "topopruned"', "declares the model 'topopruned_llava' twice"),
    ],
)
def test_a_broken_plugin_file_is_reported_in_one_sentence(tmp_path, old, new, sentence):
    with pytest.raises(InputError, match=sentence):
        manifests(changed(tmp_path, old, new))


def test_a_plugin_file_without_families_is_refused(tmp_path):
    path = tmp_path / "plugin.toml"
    path.write_text('[criteria.dense]\nprefix = "dense"\n')
    with pytest.raises(InputError, match="declares no families"):
        declarations(path)


def test_a_new_family_takes_one_table(tmp_path):
    path = changed(tmp_path, "[families.llava]", '[families.gemma]\nwraps = "gemma3"\n\n[families.llava]')
    found = {m.model_id: m for m in manifests(path)}
    assert found["topopruned_gemma"].chat_class_path is None
    assert found["topopruned_gemma"].simple_class_path.endswith(".topopruned_gemma_simple")
