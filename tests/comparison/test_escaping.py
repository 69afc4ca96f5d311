"""Names that come from outside, in every format that another program reads."""

from __future__ import annotations

import csv
import io
import json
import re

import folders
import pytest
from rich.console import Console

from lmms_topoprune._util import escape
from lmms_topoprune.cli.table import cost_table, table
from lmms_topoprune.comparison.regression import regress
from lmms_topoprune.comparison.side_by_side import compare
from lmms_topoprune.report.tables import render
from lmms_topoprune.results.reading import read_run
from lmms_topoprune.sweep.run_folders import read_runs

EVIL = (
    '=HYPERLINK("x")',
    "+1|2",
    "[bold]a[/nope]",
    "a\n::warning::b",
    "\x1b[31mred\x07",
    r"\input{x}$&%#_^~",
    "<img src=x onerror=y>",
    "‮gnp.exe",
)


@pytest.fixture(params=EVIL, ids=range(len(EVIL)))
def comparison(request, tmp_path):
    """A model, and so its label, that is called something evil."""
    scores = {"vqa": folders.exact([1.0, 0.0, 1.0, 1.0])}
    folders.write(tmp_path / "a", scores, folders.plan((), "dense"))
    folders.write(tmp_path / "b", scores, folders.plan((1,), request.param))
    return compare(read_runs([tmp_path]))


def test_csv(comparison):
    for line in csv.reader(io.StringIO(render(comparison, "csv"))):
        assert not any(cell.startswith(("=", "+", "@", "\t", "\r")) for cell in line)
        assert not any(cell.startswith("-") and not re.fullmatch(r"-[\d.e-]+", cell) for cell in line)
        assert not any(c in "".join(line) for c in "\n\x1b\u202e")


def test_markdown(comparison):
    lines = render(comparison, "markdown").splitlines()
    bars = [len(re.findall(r"(?<!\\)\|", line)) for line in lines[:4]]
    assert len(set(bars)) == 1 and lines[4] == ""
    assert "<img" not in "".join(lines) and "\x1b" not in "".join(lines)


def test_latex(comparison):
    text = render(comparison, "latex")
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    counts = {line.replace(r"\&", "").count("&") for line in body.splitlines() if line.endswith(r"\\")}
    assert len(counts) == 1
    known = r"\\(caption|centering|begin|end|toprule|midrule|bottomrule|usepackage|text\w+|[&%$#_{}\\])"
    assert not re.sub(known, "", text).count("\\")


def test_the_terminal(comparison):
    console = Console(file=io.StringIO(), width=300)
    console.print(table(comparison, "[bold]Board"), cost_table(comparison))
    shown = console.file.getvalue()
    assert "\x1b" not in shown and "\u202e" not in shown and "[bold]Board" in shown
    assert not any(line.startswith("::") for line in shown.splitlines())


def test_json_and_html(comparison):
    row = json.loads(render(comparison, "json"))["rows"][1]
    assert row["label"] == comparison.rows[1].label
    assert "<img src=x" not in render(comparison, "html")


def test_a_task_that_is_called_like_a_workflow_command(tmp_path, capsys):
    from lmms_topoprune.cli.main import main

    task = "vqa\n::warning::x"
    path = folders.write(tmp_path / "a", {"t": folders.exact([1.0] * 8)})
    results = json.loads(path.read_text().replace('"t"', json.dumps(task)))
    path.write_text(json.dumps(results))
    next((tmp_path / "a").glob("*.jsonl")).rename(path.with_name(f"{folders.DATE}_samples_{task}.jsonl"))
    _, summary = regress(read_run(path), read_run(path))
    assert not any(line.startswith("::") for line in summary.splitlines())
    for arguments in (("--save-baseline", tmp_path / "b.json"), ("--baseline", tmp_path / "b.json")):
        with pytest.raises(SystemExit):
            main(["regress", str(tmp_path / "a"), *map(str, arguments)])
        shown = "".join(capsys.readouterr())
        assert not any(line.startswith("::") for line in shown.splitlines())


def test_names_in_errors_and_messages(tmp_path, capsys):
    """What compare refuses, and what publish names, stand in one line."""
    from lmms_topoprune.cli.main import main

    scores, evil = {"t": folders.exact([1.0, 0.0] * 4)}, "a\n::warning::b\x1b[31m"
    for name, plan in (
        ("a", folders.plan((), "dense", model=evil)),
        ("b", folders.plan((1,), "own", model=evil)),
    ):
        folders.write(tmp_path / name, scores, plan)
    with pytest.raises(SystemExit) as end:
        main(["publish", str(tmp_path), "-o", str(tmp_path / "p.json")])
    assert end.value.code == 0
    path = folders.write(tmp_path / "c", scores, folders.plan((2,), "own", model=evil))
    path.write_text(path.read_text().replace('"t"', json.dumps(evil)))
    next((tmp_path / "c").glob("*.jsonl")).rename(path.with_name(f"{folders.DATE}_samples_{evil}.jsonl"))
    with pytest.raises(SystemExit) as end:
        main(["compare", str(tmp_path)])
    said = "".join(capsys.readouterr())
    assert end.value.code == 2 and "\x1b" not in said and "warning" in said
    assert not any(line.startswith("::") for line in said.splitlines())


def test_numbers_lose_what_rounding_leaves(tmp_path):
    assert escape.number(0.1 + 0.2) == 0.3 and escape.number(1.0000000000000002) == 1.0
    scores = {"vqa": folders.exact([0.1, 0.2, 0.3] * 7)}
    folders.write(tmp_path / "a", scores, folders.plan((), "dense"))
    comparison = compare(read_runs([tmp_path]))
    for form in ("csv", "json"):
        assert not re.search(r"\d\.\d{13,}", render(comparison, form))
