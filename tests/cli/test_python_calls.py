"""The Python examples of the pages, run one after the other on a tiny model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(model_folder, tmp_path, monkeypatch):
    """Runs a page's examples in one namespace, on the tiny model instead of the embedded one."""

    def run(page: str) -> dict[str, Any]:
        monkeypatch.chdir(tmp_path)
        text = (ROOT / page).read_text(encoding="utf-8")
        names: dict[str, Any] = {"__name__": "__main__"}
        for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
            block = block.replace("model_path()", repr(str(model_folder)))
            exec(compile(block, page, "exec"), names)
        return names

    return run


@pytest.mark.slow
def test_the_examples_of_the_python_page(run, tmp_path, capsys):
    names = run("docs/python.md")
    made = {path.name for path in tmp_path.iterdir()}
    assert {"plan.json", "smaller", "runs", "report.html"} <= made
    assert names["smaller"].config.text_config.num_hidden_layers == 4
    assert names["model"].config.text_config.num_hidden_layers == 6, "dense again"
    assert json.loads((tmp_path / "plan.json").read_text())["dropped"]
    assert names["comparison"].rows[0].label == "dense" and len(names["runs"]) == 3
    assert names["checks"] and names["barcode"].states == 6
    out = capsys.readouterr().out
    assert all(f"{name}: drop " in out for name in ("topology", "cosine", "norm_growth"))


def test_the_example_of_the_readme(run, capsys):
    names = run("README.md")
    assert len(names["plan"].dropped) == 2 and "drop 2 of 6 layers" in capsys.readouterr().out
    assert names["model"].config.text_config.num_hidden_layers == 6


def test_the_examples_of_the_command_line(run):
    assert "old" in run("docs/cli.md")
