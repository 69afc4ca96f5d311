"""The Python examples of the pages and the notebooks, run cell by cell on a tiny model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from lmms_topoprune import registry

ROOT = Path(__file__).parents[2]


def blocks(text: str) -> list[str]:
    """The Python of a page, or of a notebook."""
    if text.startswith("{"):
        cells = json.loads(text)["cells"]
        return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def run(model_folder, tmp_path, monkeypatch):
    """Runs a page's examples in one namespace, on the tiny model instead of the embedded one."""
    monkeypatch.setattr(registry, "_declared", dict(registry._declared))  # what they declare is theirs

    def run(page: str) -> dict[str, Any]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("MPLBACKEND", "agg")
        names: dict[str, Any] = {"__name__": "__main__"}
        for block in blocks((ROOT / page).read_text(encoding="utf-8")):
            block = block.replace("model_path()", f"__import__('pathlib').Path({str(model_folder)!r})")
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


def test_the_example_of_the_readme(run, tmp_path):
    names = run("README.md")
    assert len(names["plan"].dropped) == 2 and (tmp_path / "smaller" / "config.json").exists()


def test_the_notebook_that_prunes_and_looks(run, capsys):
    pytest.importorskip("matplotlib")
    names = run("notebooks/prune_and_look.ipynb")
    assert [plan.criterion for plan in names["plans"]] == names["criteria"]
    assert names["model"].config.text_config.num_hidden_layers == 6, "dense again"
    out = capsys.readouterr().out
    assert "random, 4 layers" in out and "dense again: 6 layers" in out


@pytest.mark.slow
def test_the_notebook_with_a_criterion_of_ones_own(run, capsys):
    names = run("notebooks/your_own_criterion.ipynb")
    assert {row.criterion for row in names["comparison"].rows} == {"dense", *names["names"]}
    assert capsys.readouterr().out.count("kept over chance") == 4


def test_the_criterion_on_the_page_about_extending(run):
    assert run("docs/extend.md")["norm_growth"].name == "norm_growth"
