"""Workflows may read and nothing else; docs and package allow the same versions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from lmms_topoprune._util.files import read_toml

WORKFLOWS = sorted((Path(__file__).parents[1] / ".github" / "workflows").glob("*.yml"))


def steps(workflow: Path) -> list[dict[str, Any]]:
    return [step for job in yaml.safe_load(workflow.read_text())["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_is_bounded(workflow: Path) -> None:
    assert yaml.safe_load(workflow.read_text())["permissions"] == {"contents": "read"}
    assert "--extra-index-url" not in workflow.read_text()
    for step in steps(workflow):
        if "uses" in step and step["uses"] != "./":  # this repository's own action, as it is checked out
            assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step["uses"]), step["uses"]
        if step.get("uses", "").startswith("actions/checkout"):
            assert step["with"]["persist-credentials"] is False


def test_there_are_workflows() -> None:
    assert {path.name for path in WORKFLOWS} >= {"ci.yml", "newest.yml", "example-regression.yml"}


def test_the_version_has_a_dated_entry_and_is_the_action_to_use() -> None:
    """The release takes its notes from that entry, and refuses a tag that is not the version."""
    root = Path(__file__).parents[1]
    version = read_toml(root / "pyproject.toml")["project"]["version"]
    entries = re.findall(r"^## \[(\d\S*)\] - \d{4}-\d\d-\d\d$", (root / "CHANGELOG.md").read_text(), re.M)
    assert entries[0] == version
    assert f"lmms-topoprune@v{version}\n" in (root / "docs/ci.md").read_text()


def test_the_table_of_versions_allows_what_the_package_does() -> None:
    root = Path(__file__).parents[1]
    project = read_toml(root / "pyproject.toml")["project"]
    asked = {r.name: r.specifier for r in map(Requirement, project["dependencies"])}
    rows = re.findall(r"^\| ([\w-]+) \| (>=\S+) \| (\S+) \|$", (root / "docs/cli.md").read_text(), re.M)
    assert {"transformers", "torch", "numba", "lmms-eval"} <= {name for name, *_ in rows}
    for name, allowed, tested in rows:
        assert asked[name] == SpecifierSet(allowed), name
        assert tested in asked[name], name
