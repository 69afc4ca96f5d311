"""Sweeps below a path: their cells share results, so their folders are no plain result folders."""

from __future__ import annotations

import folders
import pytest

from lmms_topoprune.errors import InputError
from lmms_topoprune.results.reading import read_run
from lmms_topoprune.sweep.folder import SETTINGS, SweepFolder
from lmms_topoprune.sweep.run_folders import read_runs

pytestmark = pytest.mark.slow

DENSE = folders.plan((), "dense")
CELLS = {name: folders.plan((3, 4), name) for name in ("angular", "cosine", "last_n")}


def write_sweep(place):
    sweep = SweepFolder(place)
    sweep.settle({})
    for name, plan in {"dense": DENSE, **CELLS}.items():
        sweep.keep(name, plan)
        folders.write(sweep.evaluation(plan), {"vqa": folders.exact([1.0, 0.0])}, plan)
    return place


def labels(*paths):
    return sorted(run.label for run in read_runs(paths))


def test_a_folder_above_a_sweep_has_every_cell(tmp_path):
    runs = tmp_path / "runs"
    write_sweep(runs / "sweep")
    folders.write(runs / "plain", {"vqa": folders.exact([1.0, 0.0])}, folders.plan((5,), "topology"))
    (runs / "not begun").mkdir()
    (runs / "not begun" / SETTINGS).write_text("{}")
    cells = labels(runs / "sweep")
    assert cells == ["angular 20 %", "cosine 20 %", "dense", "last_n 20 %"]
    assert labels(runs) == labels(tmp_path) == sorted([*cells, "topology 10 %"])
    assert labels(runs, runs / "sweep") == labels(runs)


def test_what_lies_inside_a_sweep_is_part_of_it(tmp_path):
    write_sweep(write_sweep(tmp_path / "sweep") / "below")
    assert labels(tmp_path) == labels(tmp_path / "sweep")


def test_the_layers_of_a_sweep_are_refused_but_one_cell_is_a_run(tmp_path, monkeypatch):
    layers = write_sweep(tmp_path) / "layers"
    with pytest.raises(InputError, match=r"a part of a sweep, whose cells share results; name '.*'$"):
        read_runs([layers])
    monkeypatch.chdir(layers)
    with pytest.raises(InputError, match="a part of a sweep"):
        read_runs(["."])
    assert labels("3-4") == ["last_n 20 %"] and read_run(layers / "3-4").dropped == "3-4"


def test_a_report_shows_the_states_of_sweeps_below(tmp_path):
    from click.testing import CliRunner

    from lmms_topoprune.cli.report import command

    sweep = SweepFolder(write_sweep(tmp_path / "sweep"))
    sweep.keep("cosine", CELLS["cosine"], [[1.0, 0.5], [0.5, 1.0]])
    pages = []
    for number, place in enumerate((sweep.path, tmp_path)):
        page = tmp_path / f"{number}.html"
        done = CliRunner().invoke(command, [str(place), "-o", str(page)])
        assert done.exit_code == 0, done.output
        pages.append(page.read_text())
    assert pages[0] == pages[1]
