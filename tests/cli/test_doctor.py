"""What doctor finds on machines where something is amiss."""

from __future__ import annotations

import shutil
import time
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from lmms_topoprune.cli import doctor
from lmms_topoprune.cli import doctor as machine
from lmms_topoprune.errors import MissingExtraError
from lmms_topoprune.harness import classes as models


def test_a_version_that_is_too_old_is_named_with_what_is_needed(monkeypatch):
    version = metadata.version
    monkeypatch.setattr(
        metadata, "version", lambda name: "4.1.0" if name == "transformers" else version(name)
    )
    (wanted,) = (text for text in doctor._requirements() if text.startswith("transformers"))
    finding = doctor._package(wanted)
    assert finding.needed and not finding.works
    assert (
        finding.detail == "4.1.0, but >=5.0 is needed" and finding.mend == "pip install 'transformers>=5.0'"
    )


def test_a_package_that_is_absent():
    finding = doctor._package("no-such-package>=2")
    assert (finding.works, finding.detail) == (False, "not installed")
    assert finding.mend == "pip install 'no-such-package>=2'"


def test_requirements_are_those_of_the_package_without_extras():
    names = [Requirement(text).name for text in doctor._requirements()]
    assert {"lmms-eval", "torch", "gudhi"} <= set(names) and "pytest" not in names and "ray" not in names


def test_one_wrapper_that_lacks_a_package_spoils_no_other(monkeypatch):
    wrapped_class = models._wrapped_class

    def broken(model, kind):
        if model.wraps != "qwen2_vl":
            return wrapped_class(model, kind)
        cause = ModuleNotFoundError("No module named 'qwen_vl_utils'", name="qwen_vl_utils")
        raise MissingExtraError("qwen2_vl of lmms-eval cannot be imported") from cause

    for kind in ("chat", "simple"):
        monkeypatch.delattr(models, f"dense_qwen2_vl_{kind}", raising=False)
    monkeypatch.setattr(models, "_wrapped_class", broken)
    findings = {finding.what.split()[1]: finding for finding in doctor._wrapped_models()}
    assert not findings["qwen2_vl"].works and findings["qwen2_vl"].mend == "pip install qwen-vl-utils"
    assert findings["llava"].works and "(chat and simple prompts)" in findings["llava"].detail
    assert "(simple prompts)" in findings["gemma3"].detail
    assert "(chat prompts)" in findings["internvl"].detail


def test_a_hub_that_never_answers_costs_little(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(machine, "PATIENCE", 0.2)
    monkeypatch.setattr(machine, "_ask", lambda address: time.sleep(5))
    start = time.perf_counter()
    finding = machine.hub()
    assert time.perf_counter() - start < 3
    assert not finding.works and not finding.needed and "no answer within 0.2 s" in finding.detail


def test_a_hub_that_is_switched_off_is_not_asked(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(machine, "_ask", lambda address: pytest.fail("asked"))
    assert "switched off by HF_HUB_OFFLINE" in machine.hub().detail


def test_a_driver_without_a_suitable_torch_is_told(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    finding = machine.accelerator()
    assert "an NVIDIA driver is here" in finding.detail and "build of torch" in finding.mend
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert machine.accelerator().detail.startswith("none; ")


def test_a_cache_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TOPOPRUNE_CACHE", str(tmp_path / "file" / "below"))
    assert "cannot be written" in machine.cache().detail
    monkeypatch.setenv("TOPOPRUNE_CACHE", str(tmp_path / "new"))
    assert machine.cache().works
    monkeypatch.setenv("TOPOPRUNE_CACHE", "off")
    assert "switched off" in machine.cache().detail


def test_optional_packages_say_what_they_are_for(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    findings = list(machine.optional_packages())
    assert {f.what for f in findings} >= {"datasets", "matplotlib", "ray"}
    assert all(not f.works and not f.needed and "pip install" in f.mend for f in findings)


def test_nothing_raises_when_a_look_fails(monkeypatch):
    def broken():
        raise RuntimeError("no\nidea")

    finding = doctor._guarded(broken)
    assert (finding.what, finding.works, finding.detail) == ("broken", False, "RuntimeError: no idea")


def test_what_doctor_advises_is_what_the_readme_says():
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert f"\n{doctor.INSTALL} " in readme
    assert "lmms-topoprune" not in doctor.INSTALL, "it is installed from a clone"
