"""Cells on a real Ray cluster of two nodes on this machine, and the same real cells everywhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from stand_in import Habits, StandIn
from test_parallel import CELLS, GRID, content, finished, gone

from lmms_topoprune.errors import GenerationError, InputError, MissingExtraError, UnreachableError
from lmms_topoprune.harness.session import Session
from lmms_topoprune.sweep.grid import Grid
from lmms_topoprune.sweep.ray_cluster import RayCluster, layout
from lmms_topoprune.sweep.runner import sweep
from lmms_topoprune.sweep.workers import Processes

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("nodes", "workers", "expected"),
    [
        ([(4, 32), (4, 32)], None, (8, 1, 0)),  # one GPU each
        ([(4, 32), (4, 32)], 3, (3, 1, 0)),
        ([(2, 8)], 16, (2, 1, 0)),
        ([(0, 8), (0, 8)], None, (2, 0, 8)),  # one a node
        ([(0, 4), (0, 16)], None, (2, 0, 16 // 2)),  # both fit on the large node
        ([(0, 8)], 3, (3, 0, 2)),
        ([(0, 2)], 5, (2, 0, 1)),
        ([(0, 0)], None, (0, 0, 1)),
    ],
)
def test_workers_fit_the_cluster(nodes, workers, expected):
    assert layout(nodes, workers) == expected


def test_without_ray_it_is_said_in_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install '\.\[ray\]'"):
        RayCluster(Habits(tmp_path))


@pytest.fixture(scope="module")
def cluster():
    """The address of a cluster of two nodes with one CPU each; its workers find these test modules."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    found = [Path(__file__).parent, Path(__file__).parents[1] / "helpers", os.environ.get("PYTHONPATH")]
    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(str(place) for place in found if place))
        patch.setenv("RAY_worker_niceness", "0")  # by default its workers give way to all other tests
        made = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
        made.add_node(**node)
        yield made.address
        made.shutdown()


@pytest.fixture
def habits(tmp_path):
    (tmp_path / "notes").mkdir()
    return lambda **more: Habits(tmp_path / "notes", **more)


@pytest.fixture
def swept(tiny_llava, tmp_path):
    def run(habits, executor=None, name="out"):
        sweep(StandIn(habits, tiny_llava(layers=6)), GRID, ["vqa"], tmp_path / name, executor=executor)
        return tmp_path / name

    return run


def test_two_nodes_give_what_one_process_gives_whoever_dies(habits, swept, cluster):
    together = swept(habits(), RayCluster(habits(pause=0.3, dies_once="2-4"), cluster), name="together")
    begun = set(habits().started())
    at_work = {pid for _, pid in begun}
    alone = swept(habits(), name="alone")
    assert finished(together) == CELLS and content(together) == content(alone)
    assert len(begun) == len(CELLS) + 1 and len(at_work) >= 2
    assert gone(at_work)


def test_what_fails_on_the_cluster_is_named_and_the_others_are_kept(habits, swept, cluster, tmp_path):
    wrong = habits(fails="3-4", dies="2-4")
    with pytest.raises(GenerationError, match=r"2 of 5 models failed: .*layers 3-4: the model failed"):
        swept(habits(), RayCluster(wrong, cluster))
    assert finished(tmp_path / "out") == CELLS - {"3-4", "2-4"}
    begun = len(habits().started())
    assert finished(swept(habits(), RayCluster(habits(), cluster))) == CELLS
    assert len(habits().started()) == begun + 2


def test_a_model_that_cannot_be_loaded_on_the_cluster_is_said_once(habits, swept, cluster):
    with pytest.raises(InputError, match="cannot be loaded"):
        swept(habits(), RayCluster(habits(opens=False), cluster))


def test_no_cluster_is_said_in_one_sentence(habits):
    pytest.importorskip("ray")
    with pytest.raises(UnreachableError, match=r"no Ray cluster at 127\.0\.0\.1:1"):
        RayCluster(habits(), "127.0.0.1:1").run([], None)


def test_real_cells_are_equal_in_every_executor(tiny_llava, embedded_processor, cluster, tmp_path):
    """The same answers to every question, byte for byte, from lmms-eval itself."""
    tiny_llava(layers=6).save_pretrained(tmp_path / "model")
    embedded_processor.save_pretrained(tmp_path / "model")
    name = f"pretrained={tmp_path / 'model'}"
    session = Session.open("dense_llava", name, batch_size=4, device="cpu", log=tmp_path / "log")
    executors = {
        "serial": None,
        "processes": Processes(session.opener, 2, "cpu", tmp_path / "logs"),
        "ray": RayCluster(session.opener, cluster, workers=1, device="cpu"),
    }
    grid, found = Grid(("last_n", "uniform"), (0.34,)), {}
    for kind, executor in executors.items():
        runs = sweep(session, grid, ["topoprune_vqa"], tmp_path / kind, limit=6, executor=executor)
        found[kind] = {run.dropped: [*run.tasks["topoprune_vqa"].scores] for run in runs}
        found[f"{kind} samples"] = {
            path.relative_to(tmp_path / kind).parts[1]: path.read_bytes()
            for path in (tmp_path / kind / "layers").rglob("*_samples_*.jsonl")
        }
    assert found["serial"] == found["processes"] == found["ray"]
    assert found["serial samples"] == found["processes samples"] == found["ray samples"]
    assert len(found["serial samples"]) == 3


def test_ray_is_not_imported_before_it_is_asked_for():
    code = "import sys, lmms_topoprune.sweep.ray_cluster; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
