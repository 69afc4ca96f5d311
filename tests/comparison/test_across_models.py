"""Several models side by side, published files, and a paper's table and figure."""

from __future__ import annotations

import json
import sys

import folders
import pytest

from lmms_topoprune.comparison.across_models import leaderboard, models_of, published, read_published
from lmms_topoprune.comparison.side_by_side import compare
from lmms_topoprune.errors import InputError, MissingExtraError
from lmms_topoprune.report.tables import save
from lmms_topoprune.results.similarity import Shape
from lmms_topoprune.sweep.run_folders import distinct, every_run, read_runs

GOOD, FAIR, POOR = ([1.0] * n + [0.0] * (100 - n) for n in (80, 60, 40))


def model(folder, name, dense, pruned):
    """A dense run, and one or several pruned ones of another seed each."""
    same = {"model": name, "fingerprint": (name * 16)[:16]}
    arguments = {"model_args": f"pretrained={name}"}
    folders.write(
        folder / "dense", {"vqa": folders.exact(dense)}, folders.plan((), "dense", **same), **arguments
    )
    for seed, scores in enumerate(pruned):
        plan = folders.plan((3, 4), parameters={"sparsity": 0.2, "seed": seed}, **same)
        folders.write(folder / f"p{seed}", {"vqa": folders.exact(scores)}, plan, **arguments)


@pytest.fixture
def two(tmp_path):
    """The weaker model keeps more of what it could."""
    model(tmp_path / "large", "large", GOOD, [POOR])
    model(tmp_path / "small", "small", POOR, [POOR, POOR[::-1]])
    return tmp_path


def read(*paths):
    return models_of(every_run(paths), distinct)


def test_every_model_is_compared_with_its_own_dense_run(two):
    found = leaderboard(read(two))
    assert {m.name for m in found.models} == {"large", "small"}
    kept = {m.name: found.cells["topology 20 %", m.name].corrected for m in found.models}
    assert kept == {"large": pytest.approx(0.5), "small": pytest.approx(1.0)}
    assert found.mean("topology 20 %") == pytest.approx(0.75)
    head, (line,) = found.table()
    assert head[0] == "criterion" and head[-1] == "mean" and line[-1] == "75.0"
    assert "50.0 (" in "".join(line) and "80.0" not in found.markdown()  # no raw score


def test_what_is_published_is_what_others_take_in(two, tmp_path):
    path = tmp_path / "theirs.json"
    models = read(two / "small")
    path.write_text(published(models))
    assert path.stat().st_size < 20_000 and "question" not in path.read_text()
    assert read_published(path) == models
    (entry,) = models[0].entries
    assert (
        entry.plan["hash"] and entry.label == "topology 20 %" and models[0].fingerprint == ("small" * 4)[:16]
    )
    again = leaderboard([*read(two), *read_published(path)])
    names = [m.name for m in again.models]
    assert len(set(names)) == 3 and any(n.endswith("#2") for n in names)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            lambda v: v["models"][0]["entries"][0].__setitem__("corrected", "much"),
            "models.0.entries.0.corrected",
        ),
        (lambda v: v["models"][0].pop("tasks"), "models.0.tasks"),
        (lambda v: v.__setitem__("models", []), "models"),
        (lambda v: v.pop("schema"), "no file of `topoprune publish`"),
    ],
)
def test_a_malformed_published_file_is_one_sentence(two, tmp_path, change, named):
    path, value = tmp_path / "x.json", json.loads(published(read(two / "small")))
    change(value)
    path.write_text(json.dumps(value))
    with pytest.raises(InputError, match=named) as caught:
        read_published(path)
    assert "\n" not in str(caught.value)


def test_a_model_without_its_dense_run_is_named(two):
    with pytest.raises(InputError, match="no dense run"):
        read(two / "large" / "p0")


def test_latex_and_figures(two, tmp_path):
    comparison = compare(read_runs([two / "small"]))
    shapes = {"topology": Shape([[1.0 - abs(i - j) / 11 for j in range(11)] for i in range(11)])}
    outputs = [tmp_path / f"x.{form}" for form in ("tex", "pdf", "svg")]
    save(comparison, *outputs, shapes=shapes)
    tex, pdf, svg = (path.read_bytes() for path in outputs)
    assert rb"\toprule" in tex and rb"topology 20 \% (2 seeds)" in tex
    assert pdf.startswith(b"%PDF") and svg.count(b"<svg") == 1
    assert b"retention over chance" not in pdf[:50] and len(svg) > 5000
    save(comparison, tmp_path / "again.svg", shapes=shapes)
    assert (tmp_path / "again.svg").read_bytes() == svg


def test_without_matplotlib_a_figure_is_one_sentence_and_nothing_is_written(two, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    comparison = compare(read_runs([two / "small"]))
    with pytest.raises(MissingExtraError, match=r"pip install '\.\[plots\]'"):
        save(comparison, tmp_path / "x.md", tmp_path / "x.pdf")
    assert not (tmp_path / "x.md").exists()


def test_the_commands(two, tmp_path, capsys):
    from lmms_topoprune.cli.main import main

    def call(*arguments):
        with pytest.raises(SystemExit) as end:
            main([str(a) for a in arguments])
        return end.value.code, capsys.readouterr()

    ours, board = tmp_path / "ours.json", tmp_path / "board.md"
    assert call("publish", two / "small", "-o", ours)[0] == 0
    code, said = call("leaderboard", two / "large", ours, "-o", board)
    assert code == 0 and "large" in said.out and "75.0" in said.out and "75.0" in board.read_text()
    code, said = call("leaderboard", two, "--json")
    assert code == 0 and json.loads(said.out)["retention_over_chance"]["topology 20 %"]["small"] == 1.0
    assert call("leaderboard", two, "-o", tmp_path / "x.pdf")[0] == 2
    code, said = call("compare", two / "small", "--every-seed", "--json")
    labels = [row["label"] for row in json.loads(said.out)["rows"]]
    assert labels[0] == "dense" and set(labels[1:]) == {"topology 20 % seed 0", "topology 20 % seed 1"}
