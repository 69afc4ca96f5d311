"""From a model and options to a plan: what is recorded, what is refused, what is not computed twice."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from families.properties import build
from families.table import FAMILIES

from lmms_topoprune import registry
from lmms_topoprune._util.disk_cache import Cache
from lmms_topoprune.calibration import calibration_set
from lmms_topoprune.calibration.states import DecoderLayers
from lmms_topoprune.errors import InputError, OptionError
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.pipeline import calibrate, make_plan, planner, plans
from lmms_topoprune.pipeline import scorer as scoring
from lmms_topoprune.pipeline.checks import resolved
from lmms_topoprune.plan import PruningPlan
from lmms_topoprune.selection import LayerScores, PairScores
from lmms_topoprune.surgery import delete_layers, fingerprint

HERE = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def model(tiny_llava):
    return tiny_llava(layers=6)


@pytest.fixture
def plan_for(model, embedded_processor, samples):
    def make(criterion="topology", count=32, **changes):
        options = PruningOptions(**{"samples": count, "k": "3", "criterion": criterion, **changes})
        given = {"name": "tiny", "samples": samples[:count], "progress": False, "cache": Cache(None)}
        return make_plan(model, embedded_processor, options, **given)

    return make


@pytest.mark.parametrize("criterion", [n for n, c in registry.criteria().items() if c.score])
def test_every_criterion_makes_a_plan(plan_for, model, criterion):
    plan = plan_for(criterion, count=12, sparsity=0.3)
    assert plan.layers == 6 and len(plan.dropped) == 2 and set(plan.dropped) <= {0, 1, 2, 3, 4, 5}
    assert plan.criterion == criterion and plan.fingerprint == fingerprint(model)
    assert len(plan.scores) == 6 and np.isfinite(plan.scores).all()
    assert json.loads(json.dumps(plan.to_json()))


def test_a_plan_says_what_it_depends_on(plan_for):
    plan = plan_for(sparsity=0.3)
    assert plan.parameters == {
        "version": 1, "k": "3", "dimension": 1, "metric": "euclidean", "sparsity": 0.3, "selection": "path",
        "protect_first": 1, "protect_last": 1, "protect_massive": True, "state": "residual",
    }  # fmt: skip
    assert plan.calibration.keys() == {"source", "samples", "seed", "token", "state", "fingerprint"}
    assert plan.calibration["samples"] == 32
    assert {"calibrate", "score", "select"} == set(plan.stages)
    assert all(stage["seconds"] >= 0 and stage["peak_bytes"] > 0 for stage in plan.stages.values())
    assert {"python", "torch", "transformers"} <= set(plan.versions)


def test_the_batch_size_does_not_matter(plan_for):
    one, eight = (plan_for(sparsity=0.3, calibration_batch=b) for b in (1, 8))
    assert one.dropped == eight.dropped and one.hash == eight.hash
    np.testing.assert_allclose(one.scores, eight.scores, atol=1e-6)


def test_the_token_and_the_samples_change_the_hash(plan_for, model, embedded_processor, samples):
    assert plan_for(sparsity=0.3).hash != plan_for(sparsity=0.3, token="ret").hash
    options = PruningOptions(sparsity=0.3, criterion="cosine")
    fewer = make_plan(model, embedded_processor, options, name="tiny", samples=samples[1:], progress=False)
    assert fewer.hash != plan_for("cosine", sparsity=0.3).hash


def test_pair_scores_become_one_number_a_layer(plan_for, monkeypatch):
    values = np.linspace(0, 1, 49).reshape(7, 7)
    monkeypatch.setattr(scoring, "score", lambda *_: PairScores(values))
    assert plan_for(sparsity=0.3).scores == pytest.approx([values[i, i + 1] for i in range(6)])


def test_no_sparsity_needs_no_calibration(model, monkeypatch):
    monkeypatch.setattr(calibration_set, "load_samples", None)
    plan = make_plan(model, None, PruningOptions(), name="tiny")
    assert plan.dropped == () and plan.scores is None and plan.calibration == {}


def test_random_layers_need_no_samples(model, monkeypatch):
    monkeypatch.setattr(calibration_set, "load_samples", None)
    options = PruningOptions(sparsity=0.3, criterion="random", seed=3)
    assert len(make_plan(model, None, options, name="tiny").dropped) == 2


def test_gardinazzi_finds_the_count_by_itself(plan_for):
    plan = plan_for("gardinazzi")
    wanted = [i for i, s in enumerate(plan.scores) if s >= 0.9 * max(plan.scores) and s > 0]
    assert plan.dropped == tuple(wanted)
    assert plan.parameters["selection"] == "threshold" and plan.parameters["state"] == "norm"


def test_a_threshold_and_a_sparsity_contradict_each_other(plan_for):
    with pytest.raises(OptionError, match=r"selection is 'threshold' and sparsity is 0\.3"):
        plan_for(sparsity=0.3, selection="threshold")


def test_what_cannot_be_deleted_stays(plan_for, monkeypatch):
    monkeypatch.setattr(planner, "undeletable", lambda _: {1: "a reason", 3: "another"})
    for criterion in ("topology", "cosine", "random", "uniform", "last_n", "greedy"):
        assert plan_for(criterion, sparsity=0.3).dropped == (2, 4)


@pytest.mark.parametrize("pairs", [False, True])
def test_layers_that_cannot_go_together_are_planned_around(pairs):
    """Layers 1 and 4 are the only ones that attend, so one of them stays: the one whose score is lower."""
    model = build(FAMILIES["lfm2_vl"], "eager")
    values = np.array([0.0, 0.9, 0.2, 0.3, 0.8, 0.1])
    scores = LayerScores(values)
    if pairs:
        similar = np.eye(7)
        similar[range(6), range(1, 7)] = similar[range(1, 7), range(6)] = values
        scores = PairScores(similar)
    options = resolved(PruningOptions(sparsity=0.34, criterion="topology" if pairs else "cosine"))
    assert plans.choose(scores, options, 6, frozenset()) == (1, 4)
    assert planner.undeletable(model) == {}
    plan = plans.plan_from(model, options, "tiny", scoring.Scored(scores, {}, {}), DecoderLayers(6), "")
    assert plan.dropped == (1, 3)
    delete_layers(model, plan.dropped)


@pytest.mark.parametrize("sparsity", [0.8, 0.95])
def test_a_sparsity_that_cannot_be_met_is_refused_before_calibration(model, monkeypatch, sparsity):
    monkeypatch.setattr(calibration_set, "load_samples", None)
    with pytest.raises(
        OptionError, match=rf"sparsity is {sparsity}, which drops . of 6 layers, .* leave 4 to drop"
    ):
        make_plan(model, None, PruningOptions(sparsity=sparsity), name="tiny")


def test_too_few_samples_for_k_are_refused(model, embedded_processor, samples):
    with pytest.raises(InputError, match="k is '5', but there are only 4 calibration samples"):
        make_plan(
            model,
            embedded_processor,
            PruningOptions(sparsity=0.3, criterion="topology"),
            name="tiny",
            samples=samples[:4],
        )


def test_layers_by_hand(model):
    plan = make_plan(model, None, PruningOptions(layers="1-2+4"), name="tiny")
    assert plan.dropped == (1, 2, 4) and plan.criterion == "given"
    with pytest.raises(InputError, match="layer 6 does not exist; the model has layers 0 to 5"):
        make_plan(model, None, PruningOptions(layers="6"), name="tiny")


def test_a_plan_file_is_used_for_its_own_model_only(model, tiny_llava, tmp_path):
    path = tmp_path / "plan.json"
    made = make_plan(model, None, PruningOptions(layers="1-2"), name="tiny")
    made.save(path)
    options = PruningOptions(plan=str(path))
    assert make_plan(model, None, options, name="elsewhere").hash == made.hash
    with pytest.raises(InputError, match=r"was made for 'tiny' with fingerprint .*make a new plan"):
        make_plan(tiny_llava(layers=6, seed=1), None, options, name="other")
    with pytest.raises(InputError, match="is for 6 layers, but 'short' has 4"):
        make_plan(tiny_llava(layers=4), None, options, name="short")


def test_equal_settings_calibrate_once(model, embedded_processor, samples, monkeypatch, tmp_path):
    passes = []
    collect = calibrate.collect_views
    monkeypatch.setattr(calibrate, "collect_views", lambda *a, **k: passes.append(1) or collect(*a, **k))

    def make(**changes):
        options = PruningOptions(**{"sparsity": 0.3, "k": "3", "samples": 32, **changes})
        given = {"name": "tiny", "samples": samples, "progress": False, "cache": Cache(tmp_path)}
        return make_plan(model, embedded_processor, options, **given)

    first, second = make(), make()
    assert len(passes) == 1 and (first.hash, first.scores) == (second.hash, second.scores)
    assert isinstance(second, PruningPlan) and second.dropped == first.dropped
    assert len(make(sparsity=0.5).dropped) == 3 and len(passes) == 1  # other counts from the same scores
    make(k="4")
    assert len(passes) == 2
    for path in tmp_path.glob("*.json"):
        path.write_text("{")
    make()
    assert len(passes) == 3
    name = PruningOptions().criterion
    newer = replace(registry.get(name), version=2)
    monkeypatch.setattr("lmms_topoprune.criteria.zigzag_influence.settled", newer)
    make()
    assert len(passes) == 4


@pytest.mark.slow
def test_two_processes_make_the_plan_of_one(plan_for, tmp_path):
    """Real gloo processes share the samples; then one of them fails and both say so."""
    command = [sys.executable, str(HERE / "helpers" / "two_ranks.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    plans = [PruningPlan.load(tmp_path / f"plan-{r}.json") for r in (0, 1)]
    alone = plan_for("cosine", sparsity=0.3)
    assert plans[0].to_json() == plans[1].to_json()
    assert plans[0].hash == alone.hash and plans[0].dropped == alone.dropped
    np.testing.assert_allclose(plans[0].scores, alone.scores, atol=1e-6)
    problems = [(tmp_path / f"problem-{r}.txt").read_text() for r in (0, 1)]
    assert problems[0] == problems[1] and "process 1 of 2 failed: rank 1 has a broken sample" in problems[0]
