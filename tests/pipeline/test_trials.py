"""Propose and settle: who proposes, what is tried in which order, what is recorded, kept and shared."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import wraps
from itertools import combinations

import numpy as np
import pytest
import torch

from lmms_topoprune import registry
from lmms_topoprune._util import files
from lmms_topoprune._util.disk_cache import Cache
from lmms_topoprune.calibration.loss import IGNORE, LossOracle, Predictions
from lmms_topoprune.calibration.prompts import Prompter
from lmms_topoprune.calibration.ranks import Ranks
from lmms_topoprune.errors import InputError, OptionError
from lmms_topoprune.options import LEAST_TRIED, PruningOptions
from lmms_topoprune.pipeline import Planner, trials
from lmms_topoprune.pipeline.cache_schema import CalibrationFacts
from lmms_topoprune.pipeline.proposals import PROPOSERS, Proposal, distinct, proposers, similarity, swap_order
from lmms_topoprune.pipeline.scorer import cached_scores
from lmms_topoprune.pipeline.trials import known_trials, settle
from lmms_topoprune.plan import PruningPlan
from lmms_topoprune.selection import LayerScores, PairScores
from lmms_topoprune.surgery import delete_layers, identity_layers

OPTIONS = PruningOptions(
    criterion="block_influence", sparsity=0.34, samples=16, point_count=64, trials=12, calibration_batch=4
)


@pytest.fixture(scope="module")
def model(tiny_llava):
    return tiny_llava(layers=8)


@pytest.fixture(scope="module")
def oracle(model, embedded_processor, samples):
    return LossOracle.of(model, Prompter(embedded_processor), samples[:8], 3)


@pytest.fixture(scope="module")
def planner(model, embedded_processor, samples):
    def make(**given):
        asked = {"cache": Cache(None), "samples": samples[:16], **given}
        return Planner("tiny", model, embedded_processor, **asked)

    return make


@pytest.fixture(scope="module")
def settled_plan(planner):
    """What a search finds that nothing disturbs, and how many passes that took."""
    made = planner()
    return made.plan(OPTIONS), made.passes


@pytest.mark.parametrize("sets", [[(1,), (2, 4), (1, 2, 3)], [(0, 5), (3,)]])
def test_a_trial_is_the_loss_of_the_model_without_these_layers(oracle, model, sets):
    found = oracle.predictions_without(sets)
    for layers, parts in zip(sets, found, strict=True):
        with identity_layers(model, layers):
            assert Predictions.total(parts).mean == pytest.approx(oracle.mean(), abs=1e-12)
        with delete_layers(model, layers):
            assert Predictions.total(oracle.predictions()).mean == pytest.approx(oracle.mean(), abs=1e-12)


def test_the_dense_model_keeps_all_of_its_answers(oracle, samples):
    total = Predictions.total(oracle.predictions())
    assert total.kept == total.answers == 8
    counted = (oracle.texts[0].labels[:, 1:] != IGNORE).nonzero()
    for place in counted[:2]:  # two tokens of one answer
        assert place[0] == 0
        choices = [whole.clone() for whole in oracle.whole]
        choices[0][tuple(place)] += 1
        changed = replace(oracle)
        changed.whole = choices
        assert Predictions.total(changed.predictions()) == replace(total, kept=7)


def test_no_token_is_no_loss():
    with pytest.raises(InputError, match="no token whose loss"):
        Predictions.total([])


def test_the_rule_itself_is_asked_first_and_all_read_one_pass(settled_plan):
    own, *others = proposers(OPTIONS)
    assert own == replace(OPTIONS, trials=0)
    assert [o.criterion for o in others] == [name for name, _ in PROPOSERS]
    assert {(o.samples, o.seed, o.sparsity) for o in others} == {(16, 0, 0.34)}
    assert settled_plan[1] == 1


def test_proposers_that_points_are_too_few_for_are_left_out():
    few = proposers(replace(OPTIONS, point_count=12))
    assert "15" not in {o.k for o in few} and "10" in {o.k for o in few}


def test_each_set_is_tried_once():
    again = Proposal((1, 2), "unions", "k=7, rank")
    first = Proposal((1, 2), "zigzags", "k=10, rank")
    assert distinct([first, Proposal((1, 3), "cosine"), again]) == [
        replace(first, also=("unions k=7, rank",)), Proposal((1, 3), "cosine"),
    ]  # fmt: skip


def test_swaps_prefer_what_states_hold_alike():
    """Layer 3 changes nothing, layer 1 everything: it takes the place of 1 first."""
    costs = np.array([0.5, 3.0, 0.4, 0.0, 0.6])
    sums = np.concatenate([[0], np.cumsum(costs)])
    pairs = np.exp(-np.abs(sums[:, None] - sums))
    order = swap_order(pairs, (1, 2), range(5))
    assert order[0] == (1, 3) and {goes for _, goes in order} == {0, 3, 4} and len(order) == 6
    assert order[-1][0] == 2


def test_scores_of_layers_alone_order_swaps_too():
    pairs = similarity([LayerScores(np.array([0.0, 5.0, 1.0, 9.0]))])
    assert swap_order(pairs, (2,), range(4))[0] == (2, 3)
    assert similarity([PairScores(np.full((3, 3), 0.5))]).shape == (3, 3)


class Known:
    """Losses of a table; measures nothing."""

    model = None

    def __init__(self, loss):
        self.loss, self.known, self.rounds = loss, {}, []

    def measure(self, sets, advance):
        self.rounds.append(list(sets))
        self.known |= {s: Predictions(self.loss(s), 1, 1, 1) for s in sets}
        advance(len(sets))


PLAN = PruningPlan("tiny", "f" * 16, 8, (1, 2), "zigzags")


def settled(loss, count, monkeypatch, proposals=((1, 2), (5, 6))):
    monkeypatch.setattr(trials, "refusal", lambda *_: None)
    losses, told = Known(loss), []
    pairs = np.full((9, 9), 0.9)
    made = settle(
        PLAN, [Proposal(p, "zigzags") for p in proposals], pairs, range(1, 7), losses, count, told.append
    )
    assert sum(told) == len(made.trials) <= count
    return made, losses


def test_the_lowest_loss_wins_and_every_trial_is_recorded(monkeypatch):
    made, _ = settled(lambda s: float(sum(s)), 2, monkeypatch)
    assert made.dropped == (1, 2) and [t["loss"] for t in made.trials] == [3.0, 11.0]
    made, _ = settled(lambda s: -float(sum(s)), 2, monkeypatch)
    assert made.dropped == (5, 6) and made.winner["by"] == "zigzags"


def test_fewer_trials_than_proposals_take_the_first(monkeypatch):
    made, _ = settled(lambda s: -float(sum(s)), 1, monkeypatch)
    assert made.dropped == (1, 2) and len(made.trials) == 1


def test_swaps_find_the_best_set(monkeypatch):
    """The losses of layers add up, so swaps reach the best of all sets, and no set is tried twice."""
    worth = dict(zip(range(1, 7), (5.0, 4.0, 0.5, 3.0, 1.0, 2.0), strict=True))
    made, losses = settled(lambda s: sum(worth[i] for i in s), 40, monkeypatch, [(1, 2)])
    assert made.dropped == (3, 5)
    tried = [tuple(t["dropped"]) for t in made.trials]
    assert len(set(tried)) == len(tried) and set(tried) <= set(combinations(range(1, 7), 2))
    assert {t["by"] for t in made.trials[1:]} == {"swap"} and made.trials[1]["how"]
    assert all(len(batch) <= trials.ROUND for batch in losses.rounds)


PAIRS = [(1, 2), (5, 6), (2, 4), (3, 6), (1, 6), (2, 3)]


def test_a_few_proposals_come_before_swaps_and_the_others_after(monkeypatch):
    made, _ = settled(lambda s: float(sum(s)), 7, monkeypatch, PAIRS)
    assert [t["by"] for t in made.trials] == ["zigzags"] * 4 + ["swap"] * 3
    made, _ = settled(lambda s: float(sum(s)), 1000, monkeypatch, PAIRS)
    tried = [tuple(t["dropped"]) for t in made.trials]
    assert set(PAIRS) <= set(tried) and len(set(tried)) == len(tried)


@pytest.mark.parametrize("few", range(1, 15))
def test_more_trials_begin_with_those_of_few(few, monkeypatch):
    def loss(layers):
        return float(sum(7 * i % 5 for i in layers))

    more, _ = settled(loss, 15, monkeypatch, PAIRS)
    assert settled(loss, few, monkeypatch, PAIRS)[0].trials == more.trials[:few]


def test_the_search_ends_when_nothing_is_left(monkeypatch):
    made, _ = settled(lambda s: float(sum(s)), 1000, monkeypatch)
    assert made.dropped == (1, 2) and len(made.trials) < 16


def test_the_plan_says_all_of_it(planner, model, settled_plan):
    alone = planner().plan(replace(OPTIONS, trials=0))
    plan, _ = settled_plan
    assert len(plan.trials) == 12 and plan.parameters["trials"] == 12 and "best of 12 trials" in str(plan)
    assert plan.trials[0]["by"] == "block_influence" and tuple(plan.trials[0]["dropped"]) == alone.dropped
    assert plan.dropped == tuple(plan.winner["dropped"]) and plan.scores == alone.scores
    assert all(len(t["dropped"]) == 3 and np.isfinite(t["loss"]) and 0 <= t["kept"] <= 1 for t in plan.trials)
    assert plan.stages["trials"]["seconds"] > 0 and "trials" not in alone.parameters
    assert not any("forward" in vars(layer) for layer in model.modules())


def test_a_trial_of_a_repaired_model_is_of_the_repaired_model(planner, model, embedded_processor, samples):
    from lmms_topoprune.pipeline import apply_plan

    plan = planner().plan(replace(OPTIONS, repair="rescale", trials=3, calibration_batch=16))
    oracle = LossOracle.of(model, Prompter(embedded_processor), samples[:16], 16)
    for trial in plan.trials:
        wanted = replace(plan, dropped=tuple(trial["dropped"]))
        with apply_plan(model, embedded_processor, wanted, samples=samples[:16]):
            assert trial["loss"] == pytest.approx(oracle.mean(), abs=1e-6)
    bare = planner().plan(replace(OPTIONS, trials=3))
    assert [t["loss"] for t in bare.trials] != [t["loss"] for t in plan.trials]


def test_nothing_is_measured_twice(planner, tmp_path, monkeypatch):
    measured = []
    whole = LossOracle.predictions_without

    def count(self, sets, advance):
        measured.extend(sets)
        return whole(self, sets, advance)

    monkeypatch.setattr(LossOracle, "predictions_without", count)
    first = planner(cache=Cache(tmp_path)).plan(replace(OPTIONS, trials=9))
    assert len(measured) == 9
    again = planner(cache=Cache(tmp_path)).plan(replace(OPTIONS, trials=9))
    assert len(measured) == 9 and again.hash == first.hash and again.trials == first.trials
    assert "trials (cached)" in again.stages
    more = planner(cache=Cache(tmp_path)).plan(OPTIONS)
    assert more.trials[:9] == first.trials and len(measured) == 12


def test_a_killed_search_goes_on_where_it_was(planner, settled_plan, tmp_path, monkeypatch):
    whole = LossOracle.predictions_without
    rounds = []

    def dies(self, sets, advance):
        if len(rounds) == 1:
            raise KeyboardInterrupt
        rounds.append(len(sets))
        return whole(self, sets, advance)

    expected, _ = settled_plan
    with monkeypatch.context() as patched:
        patched.setattr(LossOracle, "predictions_without", dies)
        with pytest.raises(KeyboardInterrupt):
            planner(cache=Cache(tmp_path)).plan(OPTIONS)
    measured = []
    monkeypatch.setattr(
        LossOracle, "predictions_without", lambda self, s, a: measured.extend(s) or whole(self, s, a)
    )
    found = planner(cache=Cache(tmp_path)).plan(OPTIONS)
    assert len(measured) == 12 - rounds[0] and found.trials == expected.trials


VALUES = {"kind": "LayerScores", "name": "cosine", "values": [0.1, 0.2, 0.3]}
COST = {"trials": {"seconds": 1.0, "peak_bytes": 5}}
TRIAL = {"by": "cosine", "dropped": [1], "loss": 2.0}


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        ("scores", {"scores": VALUES, "stages": COST, "massive": [1]}, {"massive": ["first"]}),
        ("scores", {"scores": VALUES, "stages": COST, "massive": [1]}, {"massive": [3]}),
        ("scores", {"scores": VALUES, "stages": {}, "massive": []}, {"scores": {**VALUES, "values": [0.1]}}),
        ("scores", {"scores": VALUES, "stages": {}, "massive": []}, {"scores": {**VALUES, "kind": "list"}}),
        ("scores", {"scores": VALUES, "stages": {}, "massive": []}, {"stages": {"select": 3}}),
        ("settled plan", {"dropped": [1], "trials": [TRIAL], "stages": COST}, {"dropped": [9]}),
        ("settled plan", {"dropped": [1], "trials": [TRIAL], "stages": COST}, {"dropped": [0, 1]}),
        ("settled plan", {"dropped": [1], "trials": [TRIAL], "stages": COST}, {"trials": [{"by": "cosine"}]}),
        ("settled plan", {"dropped": [1], "trials": [TRIAL], "stages": COST}, {"trials": []}),
        ("trials", {"1": [2.5, 10, 1, 2]}, {"1": [2.5, 0, 1, 2]}),
        ("trials", {"1": [2.5, 10, 1, 2]}, {"1": [2.5, 10, 3, 2]}),
        ("trials", {"1": [2.5, 10, 1, 2]}, {"1": [2.5, 10]}),
        ("trials", {"1": [2.5, 10, 1, 2]}, {"the first": [2.5, 10, 1, 2]}),
        (
            "calibration",
            {"source": "embedded", "samples": 8, "seed": 0, "fingerprint": "f", "token": "last"},
            {"samples": "many"},
        ),
    ],
)
def test_a_value_that_is_none_of_its_kind_is_set_aside(tmp_path, caplog, kind, right, wrong):
    plan, key, cache = PruningPlan("tiny", "f" * 16, 3, (2,), "cosine"), [0, 1, {}], Cache(tmp_path)
    read = {
        "scores": lambda: cached_scores(cache, key, 3),
        "settled plan": lambda: known_trials(plan, cache),
        "trials": lambda: cache.get(key, trials._measured),
        "calibration": lambda: cache.get(key, CalibrationFacts.model_validate),
    }[kind]
    place = trials._settled_key(plan) if kind == "settled plan" else key
    cache.put(place, right)
    assert read() is not None and not caplog.text
    for value in ({**right, **wrong}, [], "x", None, dict.fromkeys(right)):
        caplog.clear()
        cache.put(place, value)
        assert read() is None and read() is None
        assert caplog.text.count("set aside and computed again") == 1


def test_malformed_entries_change_no_plan(planner, tmp_path, caplog):
    expected = planner(cache=Cache(tmp_path)).plan(OPTIONS)
    for path in Cache(tmp_path).entries():
        entry = json.loads(path.read_text())
        value = {name: [] for name in entry["value"]}
        path.write_text(json.dumps({**entry, "value": value, "digest": files.digest(value)}))
    found = planner(cache=Cache(tmp_path)).plan(OPTIONS)
    assert found.hash == expected.hash and found.trials == expected.trials
    assert "trials (cached)" not in found.stages and "damaged or foreign" in caplog.text


def test_processes_share_the_texts(model, embedded_processor, samples):
    """What ranks measure of their shares adds up to what one process measures, to the last bit."""
    prompter, sets = Prompter(embedded_processor), [(1, 2), (3,)]
    few = samples[:11]
    one = LossOracle.of(model, prompter, few, 4).predictions_without(sets)
    shares = [
        LossOracle.of(model, prompter, few, 4, slice(r, None, 3)).predictions_without(sets) for r in range(3)
    ]
    for number in range(len(sets)):
        parts = [text for share in shares for text in share[number]]
        assert Predictions.total(parts) == Predictions.total(one[number])
    assert Ranks().world == 1


@pytest.mark.parametrize("value", [-1, 10_001, 2.5, "many", True])
def test_other_numbers_of_trials_are_refused(value):
    with pytest.raises(OptionError, match="trials is"):
        PruningOptions(trials=value)


def test_given_layers_are_not_tried(planner):
    plan = planner().plan(PruningOptions(layers="1-2", trials=8))
    assert plan.dropped == (1, 2) and plan.trials == ()


def test_the_default_searches_and_its_parts_and_its_reverse_do_not(planner):
    """A criterion in a comparison is one pass unless its name or its options say otherwise."""
    assert {name: PruningOptions(criterion=name).trials for name in registry.criterion_names()} == {
        name: 32 if name == PruningOptions().criterion else 0 for name in registry.criterion_names()
    }
    assert PruningOptions(criterion=f"reverse:{PruningOptions().criterion}").trials == 0
    given = {"sparsity": 0.34, "samples": 16, "point_count": 64, "k": "4", "calibration_batch": 4}
    made = planner()
    settled, alone = (made.plan(PruningOptions(**given, **more)) for more in ({}, {"trials": 0}))
    assert len(settled.trials) > 1 and not alone.trials
    assert settled.trials[0]["dropped"] == list(alone.dropped)
    assert settled.winner["loss"] <= settled.trials[0]["loss"]


def test_too_few_samples_are_not_searched_on_by_default(caplog):
    """A loss on three answers is noise: the scores alone decide, and that is said."""
    assert PruningOptions(samples=LEAST_TRIED - 1, k="3").trials == 0
    assert "too few for trials" in caplog.text
    assert PruningOptions(samples=LEAST_TRIED, k="3").trials == 32
    assert PruningOptions(samples=8, k="3", trials=4).trials == 4  # whoever asks for them gets them


def test_what_is_turned_round_is_not_searched_from():
    with pytest.raises(OptionError, match="trials is 4 with criterion 'reverse:cosine'"):
        PruningOptions(criterion="reverse:cosine", trials=4)


def test_trials_go_on_with_smaller_batches_when_memory_runs_out(
    tiny_llava, embedded_processor, samples, monkeypatch
):
    model, plans = tiny_llava(layers=8), []
    forward = type(model).forward

    @wraps(forward)
    def small(self, *arguments, **given):
        if len(given["input_ids"]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, *arguments, **given)

    for limited in (False, True):
        if limited:
            monkeypatch.setattr(type(model), "forward", small)
        made = Planner("tiny", model, embedded_processor, cache=Cache(None), samples=samples[:16])
        plans.append(made.plan(OPTIONS))
    assert plans[0].dropped == plans[1].dropped
    losses = [[trial["loss"] for trial in plan.trials] for plan in plans]
    np.testing.assert_allclose(*losses, rtol=1e-4)
