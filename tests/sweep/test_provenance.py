"""A sweep's folder is a claim: settings, plans and results are checked against one another."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import folders
import pytest
from test_sweep import CHEAP, Evaluator
from test_sweep_damage import Listener

from lmms_topoprune.errors import InputError
from lmms_topoprune.plan import PruningPlan
from lmms_topoprune.results.reading import find_results
from lmms_topoprune.results.similarity import read_shape
from lmms_topoprune.sweep.folder import SweepFolder
from lmms_topoprune.sweep.run_folders import read_runs
from lmms_topoprune.sweep.runner import sweep


@pytest.fixture
def evaluator(tiny_llava, embedded_processor):
    return lambda: Evaluator(tiny_llava(layers=6), embedded_processor)


@pytest.fixture
def swept(evaluator, tmp_path):
    sweep(evaluator(), CHEAP, ["vqa"], tmp_path)
    return tmp_path


def again(evaluator, folder, **options):
    """What a second call evaluates, and what it found wrong."""
    second, listener = evaluator(), Listener()
    sweep(second, CHEAP, ["vqa"], folder, watcher=listener, **options)
    assert len(read_runs([folder])) == 5
    return second.evaluated, listener.reasons


def test_an_untouched_folder_is_believed(evaluator, swept):
    assert again(evaluator, swept) == ([], [])


def test_missing_settings_are_told_by_the_results(evaluator, swept):
    settings = (swept / "sweep.json").read_text()
    (swept / "sweep.json").unlink()
    with pytest.raises(InputError, match="holds a sweep with limit None, not 5"):
        sweep(evaluator(), CHEAP, ["vqa"], swept, limit=5)
    assert not (swept / "sweep.json").exists()
    assert again(evaluator, swept) == ([], [])
    assert (swept / "sweep.json").read_text() == settings


def test_settings_that_cannot_be_read_are_mended(evaluator, swept):
    whole = (swept / "sweep.json").read_text()
    (swept / "sweep.json").write_text(whole[:30])
    with pytest.raises(InputError):
        sweep(evaluator(), CHEAP, ["vqa"], swept, limit=5)
    assert again(evaluator, swept) == ([], []) and (swept / "sweep.json").read_text() == whole


def test_a_copied_plan_is_made_again(evaluator, swept):
    plans = swept / "plans"
    shutil.copy(plans / "last_n-0.5-seed0.json", plans / "last_n-0.34-seed0.json")
    with pytest.raises(InputError, match=r"is the plan of cell 'last_n-0\.5-seed0'"):
        read_runs([swept])
    evaluated, reasons = again(evaluator, swept)
    assert evaluated == [] and len(reasons) == 1 and "last_n-0.5-seed0" in reasons[0]


def test_a_copied_plan_of_an_earlier_version_is_told_by_its_options(evaluator, swept):
    path = swept / "plans" / "last_n-0.34-seed0.json"
    PruningPlan.load(swept / "plans" / "last_n-0.5-seed0.json").save(path)
    evaluated, reasons = again(evaluator, swept)
    assert evaluated == [] and "sparsity 0.5, not 0.34" in reasons[0]


def test_a_plan_of_another_model_is_made_again_and_blocks_nothing(evaluator, swept):
    path = swept / "plans" / "uniform-0.34-seed0.json"
    replace(PruningPlan.load(path), fingerprint="0" * 16).save(path)
    with pytest.raises(InputError, match="is a plan for another model; run the same sweep again"):
        read_runs([swept])
    evaluated, reasons = again(evaluator, swept)
    assert evaluated == [] and "another model" in reasons[0]


def test_results_of_other_layers_are_evaluated_again(evaluator, swept):
    layers = swept / "layers"
    one, other = (folder for folder in sorted(layers.iterdir()) if folder.name in ("3-4", "2+4"))
    shutil.rmtree(one)
    shutil.copytree(other, one)
    with pytest.raises(InputError, match="holds the results of another layer than its plan's"):
        read_runs([swept])
    evaluated, reasons = again(evaluator, swept)
    assert evaluated == [one.name] and len(reasons) == 1


def test_samples_that_contradict_their_results_are_evaluated_again(evaluator, swept):
    path = next((swept / "layers" / "3-4").rglob("*_results.json"))
    results = json.loads(path.read_text())
    results["configs"]["vqa"] = {"metric_list": [{"metric": "exact_match", "aggregation": "mean"}]}
    results["results"]["vqa"] = {"exact_match,none": 0.123}
    path.write_text(json.dumps(results))
    with pytest.raises(InputError, match=r"0\.123 in the results; run the same sweep again, which mends it"):
        read_runs([swept])
    evaluated, reasons = again(evaluator, swept)
    assert evaluated == ["3-4"] and "0.123 in the results" in reasons[0]


def test_results_of_another_limit_are_evaluated_again(evaluator, swept, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    sweep(evaluator(), CHEAP, ["vqa"], other, limit=5)
    shutil.rmtree(swept / "layers" / "3-4")
    shutil.copytree(other / "layers" / "3-4", swept / "layers" / "3-4")
    evaluated, reasons = again(evaluator, swept)
    assert evaluated == ["3-4"] and "evaluated with limit 5" in reasons[0]


@pytest.mark.parametrize(
    ("change", "named"),
    [({"tasks": "vqa"}, "tasks"), ({"limit": []}, "limit"), ({"schema": "x/2"}, "schema 'x/2'")],
)
def test_malformed_settings_are_one_sentence(swept, change, named):
    path = swept / "sweep.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=named) as caught:
        SweepFolder(swept).settings()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("states", "bar", "barcodes"),
    [
        (7, [1, 0, 3, 10**9], 1),
        (7, [1, 0, 3, 10**6], 50),  # a model may have each of them
        (10**9, [1, 0, 3, 1], 1),
        (3, [1, 0, 9, 1], 1),
        (3, [1, 3, 3, 1], 1),
    ],
)
def test_counts_beyond_any_model_are_refused_at_once(tmp_path, states, bar, barcodes):
    path = tmp_path / "topology.json"
    told = [{"k": 5, "dimension": 1, "states": states, "bars": [bar]}] * barcodes
    path.write_text(json.dumps({"criterion": "topology", "values": None, "barcodes": told}))
    with pytest.raises(InputError, match="barcodes"):
        read_shape(path)


def test_a_task_that_cannot_be_scored_leaves_the_evaluation_finished(evaluator, tmp_path):
    """MMMU and its like once were evaluated again without end."""

    class Judged(Evaluator):
        def evaluate(self, plan, tasks, output, **given):
            path = super().evaluate(plan, tasks, output, **given)
            samples = next(path.parent.glob("*_samples_*"))
            rows = [
                {**json.loads(line), "exact_match": {"text": "?"}}
                for line in samples.read_text().splitlines()
            ]
            samples.write_text("".join(json.dumps(row) + "\n" for row in rows))
            results = json.loads(path.read_text())
            results["results"]["vqa"] = {}
            path.write_text(json.dumps(results))
            return path

    model = evaluator()
    first = Judged(model.model, model.processor)
    with pytest.raises(InputError, match="has no metric that is a number"):
        sweep(first, CHEAP, ["vqa"], tmp_path)
    assert len(first.evaluated) == 5
    second = Judged(model.model, model.processor)
    with pytest.raises(InputError, match="has no metric that is a number"):
        sweep(second, CHEAP, ["vqa"], tmp_path)
    assert second.evaluated == [] and len(find_results(tmp_path / "layers")) == 5


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_worker_watches_its_parent_before_its_imports(tmp_path):
    """The module it is to serve from takes a minute to import; its parent is killed meanwhile."""
    (tmp_path / "slow_module.py").write_text("import time; open('begun', 'w').close(); time.sleep(60)")
    script = (
        "import multiprocessing, time\n"
        "from lmms_topoprune._util.follow_parent import follow_parent\n"
        "if __name__ == '__main__':\n"
        "    context = multiprocessing.get_context('spawn')\n"
        "    child = context.Process(target=follow_parent, args=('slow_module:f',))\n"
        "    child.start(); print(child.pid, flush=True); time.sleep(60)\n"
    )
    (tmp_path / "parent.py").write_text(script)
    parent = subprocess.Popen(
        [sys.executable, "parent.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    child = int(parent.stdout.readline())
    end = time.monotonic() + 60
    while not (tmp_path / "begun").exists() and time.monotonic() < end:
        time.sleep(0.05)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    end = time.monotonic() + 5
    while Path(f"/proc/{child}").exists() and time.monotonic() < end:
        state = Path(f"/proc/{child}/stat")
        if state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.05)
    assert (tmp_path / "begun").exists() and time.monotonic() < end


def test_what_a_sweep_keeps_beside_results_is_no_result(swept):
    kept = list((swept / "layers").rglob("sweep_settings.json"))
    assert len(kept) == 5 and len(find_results(swept / "layers")) == 5
    assert folders.DATE in find_results(swept / "layers")[0].name
