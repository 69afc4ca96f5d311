"""The built wheel, installed outside the source tree, registers the models and carries what they need."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import lmms_topoprune

pytestmark = pytest.mark.slow

SOURCE = Path(__file__).parents[1]
CODE = """
import sys
from importlib.metadata import entry_points
import lmms_topoprune
from lmms_eval.models import MODEL_REGISTRY_V2
from lmms_topoprune._util.packaged import shared_path
assert any(e.name == "topoprune" for e in entry_points(group="lmms_eval.models"))
assert MODEL_REGISTRY_V2.resolve("topopruned_llava").model_type == "chat"
assert MODEL_REGISTRY_V2.resolve("dense_llava", force_simple=True).model_type == "simple"
assert "torch" not in sys.modules
assert list(shared_path("tasks").glob("**/*.yaml"))
from lmms_topoprune.report.render import page
assert "<!doctype html>" in page("title", "summary", [])
print(lmms_topoprune.__file__)
print(shared_path("plugin.toml"))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds an installed package: a fresh one, or (without sources) our own."""
    if not (SOURCE / "lmms_topoprune").is_dir():
        return Path(lmms_topoprune.__file__).parents[1]
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(folder), str(SOURCE)], check=True, timeout=300)
    return folder


def test_the_entry_point_works_outside_the_source_tree(installed, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    found = subprocess.run(
        [sys.executable, "-c", CODE],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert found.returncode == 0, found.stderr
    package, plugin = found.stdout.splitlines()[-2:]
    assert Path(package).parents[1] == installed
    assert installed in Path(plugin).parents
