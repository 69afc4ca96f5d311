"""How many layers go: a share, a count, what is left of the parameters, or what a tolerance allows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lmms_topoprune._util.disk_cache import Cache
from lmms_topoprune.errors import OptionError
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.pipeline import Planner, checks, trials
from lmms_topoprune.pipeline.checks import counted, why_nothing_goes
from lmms_topoprune.plan import PruningPlan
from lmms_topoprune.surgery import delete_layers, layer_sizes

COSINE = PruningOptions(criterion="cosine", samples=16, calibration_batch=16)


@pytest.fixture(scope="module")
def model(tiny_llava):
    return tiny_llava(layers=6)


@pytest.fixture(scope="module")
def planner(model, embedded_processor, samples):
    return Planner("tiny", model, embedded_processor, cache=Cache(None), samples=samples[:16])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"sparsity": 1.0}, "sparsity is 1.0; allowed: 0 <= sparsity < 1, or auto"),
        ({"sparsity": "most"}, "sparsity is 'most'; allowed: a number"),
        ({"drop": 0}, "drop is 0; allowed: whole numbers from 1"),
        ({"drop": 2.5}, "drop is 2.5; allowed: a whole number"),
        ({"parameters": -1.0}, "parameters is -1.0; allowed: numbers above 0"),
        ({"parameters": float("inf")}, "parameters is inf"),
        ({"tolerance": "little"}, "tolerance is 'little'; allowed: a rise of the loss from 0"),
        ({"tolerance": "101%"}, "tolerance is '101%'"),
        ({"tolerance": -0.1}, "tolerance is '-0.1'"),
        ({"drop": 3, "sparsity": 0.3}, "sparsity and drop are given together; pass one of them"),
        ({"sparsity": "auto", "layers": "1"}, "sparsity and layers are given together"),
        ({"drop": 3, "parameters": 5e9}, "drop and parameters are given together"),
    ],
)
def test_what_cannot_be_is_refused(given, said):
    with pytest.raises(OptionError) as error:
        PruningOptions(**given)
    assert str(error.value).startswith(said)


def test_a_count_is_a_share_of_the_layers(planner):
    by_count, by_share = planner.plans([replace(COSINE, drop=2), replace(COSINE, sparsity=2 / 6)])
    assert by_count.dropped == by_share.dropped and by_count.hash == by_share.hash
    with pytest.raises(OptionError, match=r"drop is 5, which drops 5 of 6 layers, .* leave 4 to drop"):
        planner.plan(replace(COSINE, drop=5))


def test_every_count_survives_becoming_a_share():
    for layers in range(2, 130):
        for drop in range(1, layers):
            asked = counted(PruningOptions(drop=drop), layers, [], 0)
            assert asked.drop_count(layers) == drop


def test_the_pruned_model_has_no_more_parameters_than_asked_for(planner, model):
    sizes, total = layer_sizes(model)
    assert total == model.num_parameters() and len(set(sizes)) == 1
    for wanted, drops in ((total - 1, 1), (total - sizes[0], 1), (total - sizes[0] - 1, 2)):
        plan = planner.plan(replace(COSINE, parameters=float(wanted)))
        with delete_layers(model, plan.dropped):
            assert len(plan.dropped) == drops and model.num_parameters() <= wanted
    assert planner.plan(replace(COSINE, parameters=float(total))).dropped == ()
    with pytest.raises(OptionError, match=r"parameters is 1000, but the model has .* allowed: from"):
        planner.plan(replace(COSINE, parameters=1000.0))


@pytest.mark.parametrize(("tolerance", "drops"), [("0.35", 3), ("0.4", 4), ("0", 0), ("25%", 2)])
def test_auto_drops_as_many_layers_as_the_tolerance_allows(planner, monkeypatch, tolerance, drops):
    monkeypatch.setattr(trials, "_rise", lambda plan, *_: len(plan.dropped) / 10)
    plan = planner.plan(replace(COSINE, sparsity="auto", tolerance=tolerance))
    assert len(plan.dropped) == drops and plan.parameters["tolerance"] == tolerance
    within = [int(count) for count, rise in plan.parameters["rises"].items() if rise <= 0.01 + drops / 10]
    assert max(within, default=0) == drops


def test_a_tolerance_that_is_meant_as_a_share_is_noticed(planner, caplog, monkeypatch):
    monkeypatch.setattr(trials, "_rise", lambda plan, *_: 0.0)
    for tolerance, said in (("5", "may grow 148 times"), ("5%", ""), ("0.9", "")):
        caplog.clear()
        planner.plan(replace(COSINE, sparsity="auto", tolerance=tolerance))
        assert said in caplog.text and bool(said) is ("percent sign" in caplog.text)


def test_auto_measures_the_loss_and_the_answers(planner):
    by_loss = planner.plan(replace(COSINE, sparsity="auto", tolerance="100", trials=2))
    assert len(by_loss.dropped) == 4 and len(by_loss.trials) == 1  # all that may go
    dense = planner._losses(by_loss, COSINE).dense
    assert dense.kept == dense.answers == 16
    assert by_loss.parameters["rises"]["4"] == pytest.approx(by_loss.winner["loss"] - dense.mean, abs=1e-6)
    by_answers = planner.plan(replace(COSINE, sparsity="auto", tolerance="100%"))
    assert len(by_answers.dropped) == 4
    assert by_answers.parameters["rises"]["4"] == pytest.approx(1 - by_answers.winner["kept"], abs=1e-6)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "sparsity is 0; pass sparsity=0.3, drop=2, sparsity=auto or layers=3-5+9"),
        (
            {"sparsity": 0.01},
            "sparsity is 0.01, which is less than half of one of 6 layers; pass sparsity=0.3",
        ),
        ({"sparsity": "auto"}, "dropping a single layer raises the loss of a calibration token by 0.25"),
        (
            {"sparsity": "auto", "tolerance": "5%"},
            "dropping a single layer changes 25.0% of the dense model's answers to the calibration samples, "
            "more than tolerance=5% allows; pass a larger one, calibration= with samples like your use",
        ),
        ({"parameters": 5e9}, "the whole model has no more parameters than that"),
    ],
)
def test_what_to_do_where_nothing_goes(given, said):
    plan = PruningPlan("tiny", "", 6, (), "cosine", parameters={"rises": {"1": 0.25}})
    assert why_nothing_goes(PruningOptions(**given), plan).startswith(said)


def test_where_every_layer_stays_no_larger_tolerance_is_advised():
    nothing_tried = PruningPlan("tiny", "", 2, (), "cosine", parameters={"rises": {}})
    assert why_nothing_goes(PruningOptions(sparsity="auto"), nothing_tried) == "every layer has to stay"


def test_a_loaded_model_is_not_looked_up_by_its_name(planner, monkeypatch):
    """A sweep's model may be called "embedded", which the hub would be asked for."""
    monkeypatch.setattr(checks, "count_layers", lambda path: pytest.fail(f"{path} was looked up"))
    planner.check(COSINE, replace(COSINE, drop=2))
    with pytest.raises(OptionError, match="drops 5 of 6 layers"):
        planner.check(replace(COSINE, drop=5))
