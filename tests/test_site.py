"""The front door: README, the documentation site, the action and the package's description."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
WORDS = 10_000
"""Of all pages together; CONTRIBUTING, which the last of them shows, is not counted."""


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_site_is_twelve_short_pages() -> None:
    assert len(PAGES) == 12
    tokens = [token for page in PAGES for token in page.read_text(encoding="utf-8").split()]
    assert sum(any(map(str.isalnum, token)) for token in tokens) <= WORDS, "no rules of tables counted"


def test_the_first_screen_of_the_readme_can_be_read_once() -> None:
    """One picture, three commands, three links, and no sentence longer than 25 words."""
    screen = read("README.md").partition("\n## ")[0]
    commands = re.findall(r"^```bash\n(.*?)^```", screen, re.MULTILINE | re.DOTALL)
    assert [line.split()[0] for line in "".join(commands).splitlines()] == ["pip", "lmms-eval", "pip"]
    assert len(re.findall(r"!\[", screen)) == 1
    assert len(re.findall(r"^- .*\]\(docs/", screen, re.MULTILINE)) == 3
    prose = re.sub(r"```.*?```|!\[[^\]]*\]\([^)]*\)|\]\([^)]*\)|[*\[\]`#-]", " ", screen, flags=re.DOTALL)
    for sentence in re.split(r"(?<=[.:?])\s+|\n\s*\n", prose):
        assert len(sentence.split()) <= 25, sentence


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda p: p.name)
def test_what_a_page_links_to_in_the_repository_is_there(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if not re.match(r"\w+:", target):
            assert (page.parent / target).exists(), target


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_asks_nobody_for_anything(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    texts = {page.stem: page.read_text(encoding="utf-8") for page in tmp_path.glob("*.html")}
    for text in texts.values():
        assert not re.search(
            r"<(script|img|iframe)[^>]*src=\"?https?:|<link[^>]*stylesheet[^>]*https?:", text
        )
    assert "topoprune-plan" in texts["cli"] and "--sparsity" in texts["cli"]
    assert 'id="lmms_topoprune.make_plan"' in texts["python"]


@pytest.mark.parametrize("file", sorted((ROOT / ".github/workflows").glob("*.yml")), ids=lambda p: p.name)
def test_actions_of_others_are_pinned_by_commit(file: Path) -> None:
    jobs = yaml.safe_load(file.read_text(encoding="utf-8"))["jobs"].values()
    for used in (step["uses"] for job in jobs for step in job["steps"] if "uses" in step):
        assert used.startswith("./") or re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", used), used


def test_the_page_has_every_input_of_the_action() -> None:
    inputs = yaml.safe_load(read("action.yml"))["inputs"]
    assert set(re.findall(r"^\| `([\w-]+)` \|", read("docs/ci.md"), re.MULTILINE)) == set(inputs)


@pytest.fixture
def step(tmp_path: Path) -> Callable[..., tuple[int, dict[str, str], str]]:
    """Runs a step of the action in an empty folder, with programs that only tell how they were called."""
    programs = tmp_path / "bin"
    programs.mkdir()
    told = tmp_path / "told"
    for name in ("topoprune", "gh"):
        program = programs / name
        program.write_text(
            f'#!/bin/bash\necho "{name} $*" >> {told}\n'
            'while [ $# -gt 0 ]; do [ "$1" = --summary ] && echo "| table |" > "$2"; shift; done\n'
            f'exit "${{{name.upper()}_CODE:-0}}"\n'
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    steps = {one["name"]: one for one in yaml.safe_load(read("action.yml"))["runs"]["steps"]}

    def run(name: str, **environment: str) -> tuple[int, dict[str, str], str]:
        file = tmp_path / "step.sh"
        file.write_text(steps[name]["run"])
        output = tmp_path / "output"
        output.write_text("")
        (tmp_path / "out").mkdir(exist_ok=True)
        given: dict[str, Any] = {
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "GITHUB_OUTPUT": str(output),
            "GITHUB_REPOSITORY": "me/mine",
            **environment,
        }
        assert set(steps[name]["env"]) <= {*environment, "GH_TOKEN"}
        shell = ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(file)]
        code = subprocess.run(shell, cwd=tmp_path, env=given, timeout=60).returncode
        values = dict(re.findall(r"^(\w+)=(.*)$", output.read_text(), re.MULTILINE))
        return code, values, told.read_text() if told.exists() else ""

    return run


def test_the_action_evaluates_with_and_without_a_limit(step) -> None:
    given = {"MODEL": "cosine_pruned_llava", "MODEL_ARGS": "pretrained=my model", "TASKS": "mme"}
    _, _, told = step("Evaluate", **given, LIMIT="", BATCH_SIZE="4", OUTPUT="out")
    assert "--model_args pretrained=my model --tasks mme --batch_size 4" in told and "--limit" not in told
    _, _, told = step("Evaluate", **given, LIMIT="20", BATCH_SIZE="4", OUTPUT="out")
    assert "--limit 20" in told.splitlines()[-1]


def test_the_action_tells_a_regression_from_a_mistake(step) -> None:
    given = {
        "BASELINE": "baseline.json",
        "TOLERANCE": "2",
        "SAME_PLAN": "true",
        "COMMENT": "false",
        "OUTPUT": "out",
    }
    code, values, told = step("Compare", **given)
    assert code == 0 and values["passed"] == "true"
    assert "--baseline baseline.json --tolerance 2 --same-plan" in told
    code, values, _ = step("Compare", **given, TOPOPRUNE_CODE="1")
    assert code == 0 and values["passed"] == "false", "the comment comes before the verdict"
    assert step("Compare", **given, TOPOPRUNE_CODE="2")[0] == 2
    assert step("Verdict", PASSED="false")[0] != 0 and step("Verdict", PASSED="true")[0] == 0


def test_the_action_makes_a_baseline_where_there_is_none(step) -> None:
    given = {"BASELINE": "", "TOLERANCE": "1", "SAME_PLAN": "false", "COMMENT": "true", "OUTPUT": "out"}
    code, _, told = step("Compare", **given)
    assert code == 0 and "--save-baseline out/baseline.json" in told and "--same-plan" not in told


@pytest.mark.parametrize("name", ["SAME_PLAN", "COMMENT"])
@pytest.mark.parametrize("value", ["yes", "True", ""])
def test_the_action_leaves_no_check_out_for_a_misspelt_yes(step, name, value) -> None:
    given = {"BASELINE": "baseline.json", "TOLERANCE": "1", "SAME_PLAN": "true", "COMMENT": "false"}
    code, _, told = step("Compare", **given | {name: value}, OUTPUT="out")
    assert code == 2 and not told


def test_the_action_keeps_one_comment_up_to_date(step, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "summary.md").write_text("| table |\n")
    given = {"NUMBER": "7", "OUTPUT": "out", "MODEL": "dense_llava", "TASKS": "mme"}
    code, _, told = step("Comment", **given)
    assert code == 0 and "--method POST repos/me/mine/issues/7/comments" in told
    assert (tmp_path / "out" / "comment.md").read_text() == "<!-- topoprune dense_llava mme -->\n| table |\n"
