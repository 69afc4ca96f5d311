"""Every criterion against an independent computation from its paper's definition."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from scipy.stats import rankdata

from lmms_topoprune import registry
from lmms_topoprune.calibration.states import DecoderLayers, HiddenStates, TokenSums
from lmms_topoprune.criteria import (
    angular,
    block_influence,
    cka,
    controls,
    cosine,
    gardinazzi,
    greedy,
    knn_overlap,
    position,
    relative_magnitude,
    topology,
    topology_angle,
    topology_angle_influence,
    unions,
    zigzag_influence,
    zigzags,
)
from lmms_topoprune.criteria.scoring import (
    Measurements,
    score,
    score_parameters,
    scores_from_json,
    scores_to_json,
)
from lmms_topoprune.errors import InputError, OptionError, OwnCodeError
from lmms_topoprune.options import PruningOptions, own_defaults
from lmms_topoprune.pipeline.checks import resolved
from lmms_topoprune.pipeline.proposals import proposers
from lmms_topoprune.pipeline.scorer import share_distances
from lmms_topoprune.selection import LayerScores, PairScores, select
from lmms_topoprune.topology import (
    Barcode,
    Neighbors,
    inter_layer_persistence,
    jaccard,
    union_zigzag_barcode,
    zigzag_barcode,
)

torch = pytest.importorskip("torch")
LAYERS, SAMPLES, WIDTH = 5, 30, 8
OPTIONS = PruningOptions(sparsity=0.4, state="residual", k="3", samples=SAMPLES)


@pytest.fixture(scope="module")
def states():
    """A walk (L + 1, N, d): every layer adds something, layer 2 next to nothing."""
    rng = np.random.default_rng(0)
    steps = rng.normal(size=(LAYERS + 1, SAMPLES, WIDTH)) * np.array([1, 1, 1, 0.01, 1, 1])[:, None, None]
    return steps.cumsum(0).astype(np.float32)


@pytest.fixture
def hidden(states):
    return HiddenStates("residual", torch.from_numpy(states))


@pytest.fixture
def sums():
    means = {"token_cosine": np.array([0.1, 0.5, 0.99, 0.4, 0.2]), "relative_magnitude": np.arange(5) / 10}
    return TokenSums(means, 100)


def test_cosine(hidden, states):
    expected = [
        np.mean([a @ b / np.sqrt((a @ a) * (b @ b)) for a, b in zip(states[i], states[i + 1], strict=True)])
        for i in range(LAYERS)
    ]
    found = cosine.score(hidden)
    np.testing.assert_allclose(found.values, expected, atol=1e-6)
    assert select(found, 1, protect_first=0, protect_last=0) == (2,)


def test_angular(hidden, states):
    x = states.astype(float)
    unit = x / np.sqrt((x * x).sum(-1))[..., None]
    expected = 1 - np.arccos(np.einsum("ind,jnd->ijn", unit, unit).clip(-1, 1)).mean(-1) / np.pi
    found = angular.score(hidden)
    np.testing.assert_allclose(found.values, expected, atol=1e-3)
    # Gromov et al. drop the contiguous block whose two ends are closest.
    start = min(range(LAYERS - 1), key=lambda i: 1 - expected[i, i + 2])
    rule = registry.get("angular").selection
    assert select(found, 2, rule=rule, protect_first=0, protect_last=0) == (start, start + 1)


def test_block_influence_drops_the_layer_that_turns_least(sums):
    found = block_influence.score(sums).values
    np.testing.assert_allclose(-found, 1 - np.array([0.1, 0.5, 0.99, 0.4, 0.2]))  # -BI


def test_relative_magnitude_drops_the_smallest_update(sums):
    found = relative_magnitude.score(sums)
    assert select(found, 2, protect_first=0, protect_last=0) == (0, 1)


def test_topology_is_the_jaccard_of_the_barcode(hidden, states):
    expected = jaccard(zigzag_barcode(states, k=3, dimensions=(1,)), 1)
    np.testing.assert_array_equal(topology.pairwise(hidden, OPTIONS).values, expected)


def test_several_scales_are_averaged(hidden):
    one, two, both = (topology.pairwise(hidden, _with(k=k)).values for k in ("3", "4", "3+4"))
    np.testing.assert_allclose(both, (one + two) / 2)
    assert (one != two).any()


def test_gardinazzi_scores_the_layers_and_not_the_final_norm(states):
    expected = inter_layer_persistence(zigzag_barcode(states + 1, k=3, dimensions=(1,)), 1, 0.5)
    inside = HiddenStates("norm", torch.from_numpy(states + 1))
    found = gardinazzi.score(inside, _with(state="norm", alpha=0.5))
    np.testing.assert_array_equal(found.values, expected[:LAYERS])


def test_static_homology_bounds_the_jaccard(hidden, states):
    """Its Betti numbers are those of each state alone, computed without a zigzag."""
    gudhi = pytest.importorskip("gudhi")
    numbers = np.array([_betti_one(gudhi, x, 3) for x in states], float)
    low, high = np.minimum.outer(numbers, numbers), np.maximum.outer(numbers, numbers)
    found = controls.static_homology(hidden, OPTIONS).values
    np.testing.assert_allclose(found, np.where(high > 0, low / np.maximum(high, 1), 1))
    assert (topology.pairwise(hidden, OPTIONS).values <= found + 1e-12).all()


def _betti_one(gudhi, points, k):
    distances = ((points[:, None] - points[None]) ** 2).sum(-1)
    np.fill_diagonal(distances, np.inf)
    tree = gudhi.SimplexTree()
    for i, row in enumerate(distances):
        for j in np.argsort(row)[:k]:
            tree.insert([i, int(j)])
    tree.expansion(2)
    tree.compute_persistence(persistence_dim_max=True)
    return tree.betti_numbers()[1]


def test_shuffled_layers_is_the_score_of_states_in_another_order(hidden, states):
    order = np.random.default_rng(OPTIONS.seed).permutation(len(states))
    expected = jaccard(zigzag_barcode(states[order], k=3, dimensions=(1,)), 1)
    found = controls.shuffled(hidden, OPTIONS).values
    for a, i in enumerate(order):
        for b, j in enumerate(order):
            assert found[i, j] == expected[a, b]


def test_random_is_a_seeded_order():
    first, again, other = (position.score(DecoderLayers(12), _with(seed=s)).values for s in (0, 0, 1))
    assert sorted(first) == list(range(12)) and (first == again).all() and (first != other).any()


@pytest.mark.parametrize(
    ("sparsity", "expected"), [(0.1, (6,)), (0.25, (2, 6, 9)), (0.5, (1, 3, 5, 6, 8, 10))]
)
def test_uniform_is_evenly_spaced(sparsity, expected):
    options = _with(sparsity=sparsity)
    found = select(position.uniform(DecoderLayers(12), options), options.drop_count(12))
    assert found == expected
    gaps = np.diff(found)
    assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1


def test_uniform_spaces_around_what_must_stay():
    options = _with(sparsity=0.25)
    found = select(position.uniform(DecoderLayers(12, frozenset({2, 6})), options), 3, forbidden={2, 6})
    assert len(found) == 3 and not {2, 6} & set(found)


def test_last_n_keeps_the_last_layer_only_when_protected():
    scores = position.last_n(DecoderLayers(6))
    assert select(scores, 2) == (3, 4)
    assert select(scores, 2, protect_last=0) == (4, 5)


def test_reverse_turns_any_criterion_round(hidden):
    plain = registry.get("cosine")(hidden)
    turned = registry.get("reverse:cosine")(hidden)
    assert isinstance(turned, LayerScores)
    assert (np.argsort(turned.values) == np.argsort(plain.values)[::-1]).all()
    pairs = controls.topology_reversed(hidden, OPTIONS)
    assert isinstance(pairs, PairScores)
    np.testing.assert_allclose(pairs.values, 1 - topology.pairwise(hidden, OPTIONS).values)


@pytest.mark.parametrize("name", [n for n, c in registry.criteria().items() if c.score])
def test_every_declared_criterion_exists_and_its_options_are_valid(name):
    criterion = registry.get(name)
    assert callable(criterion.score)
    options = PruningOptions(criterion=name)
    assert own_defaults(name).items() <= vars(options).items()
    assert criterion.defaults.items() <= own_defaults(name).items()
    assert PruningOptions(criterion=f"reverse:{name}", samples=99).samples == 99
    assert all(hasattr(options, p) for p in criterion.parameters)


def test_the_papers_settings_are_the_registered_ones():
    paper, later = PruningOptions(criterion="gardinazzi"), PruningOptions(criterion="topovlm")
    assert (paper.k, paper.alpha, paper.token, paper.eps) == ("5", 0.0, "last", 0.9)
    assert (paper.protect_first, paper.protect_last, registry.get("gardinazzi").state) == (0, 0, "norm")
    assert (later.k, later.alpha, later.token) == ("15", 1.0, "ret")
    assert registry.get("topovlm").state == "residual"
    assert PruningOptions(criterion="topovlm", k=7).k == "7"  # what is given stands


def test_a_default_that_no_criterion_can_have_is_refused(monkeypatch):
    broken = registry.criterion("broken", defaults={"state": "norm"})(cosine.unit)
    del registry._declared[registry.Criterion, "broken"]
    monkeypatch.setitem(registry._declared, (registry.Criterion, "broken"), broken)
    with pytest.raises(OptionError, match="a default of criterion broken is 'state'; allowed: alpha, "):
        PruningOptions(criterion="broken")


def test_an_unknown_criterion_is_refused_with_the_nearest():
    with pytest.raises(OptionError, match="did you mean 'cosine'"):
        registry.get("cosin")
    with pytest.raises(OptionError, match="criterion is 'reverse:none'"):
        registry.get("reverse:none")


def test_what_was_not_collected_is_named():
    nothing = Measurements(DecoderLayers(3))
    with pytest.raises(InputError, match="state is 'norm'; kept in this calibration: none"):
        score(nothing, PruningOptions(criterion="cosine", state="norm"))
    with pytest.raises(InputError, match="token_cosine was not collected"):
        score(nothing, PruningOptions(criterion="block_influence"))
    with pytest.raises(InputError, match="needs the model itself"):
        score(nothing, PruningOptions(criterion="greedy"))


def test_a_criterion_gets_what_it_declared_and_nothing_else(monkeypatch, hidden, sums):
    """The loss oracle, which holds the model, is not even made for the others."""

    def never():
        raise AssertionError("nobody asked for the model")

    found = Measurements(DecoderLayers(LAYERS), {"residual": hidden}, sums, never)
    for name, criterion in registry.criteria().items():
        if criterion.score and not criterion.loss:
            score(found, PruningOptions(criterion=name, state="residual", k="3", samples=SAMPLES))

    def declare(name, function, **told):
        made = registry.criterion(name, **told)(function)
        del registry._declared[registry.Criterion, name]
        monkeypatch.setitem(registry._declared, (registry.Criterion, name), made)
        return PruningOptions(criterion=name, state="residual")

    options = declare("greedier", greedy.score.score, state="residual", loss=False)
    with pytest.raises(InputError, match="'greedier' takes 'loss'; declared for it: layers, options, states"):
        score(found, options)
    options = declare("few", block_influence.score.score, state="none", sums=("relative_magnitude",))
    with pytest.raises(InputError, match="token_cosine was not collected"):
        score(found, options)


@pytest.mark.parametrize(
    ("returned", "sentence"),
    [
        ([0.0] * LAYERS, "criterion 'mine' returned a list; allowed: LayerScores, PairScores"),
        (LayerScores(np.zeros(LAYERS - 1)), f"'mine' scores {LAYERS - 1} layers; the model has {LAYERS}"),
    ],
)
@pytest.mark.parametrize("turned", ["", "reverse:"])
def test_what_are_no_scores_of_these_layers_is_one_sentence(monkeypatch, returned, sentence, turned):
    made = registry.Criterion("mine", lambda layers: returned, state="none")
    monkeypatch.setitem(registry._declared, (registry.Criterion, "mine"), made)
    with pytest.raises(InputError, match=sentence.replace("'mine'", f"'{turned}mine'")):
        score(Measurements(DecoderLayers(LAYERS)), PruningOptions(criterion=f"{turned}mine"))


class Callable:
    def __call__(self, layers):
        raise ZeroDivisionError


def test_an_exception_in_somebody_elses_criterion_is_told_as_theirs(monkeypatch):
    """Ours stay what they are: errors of this package, a lack of memory, and defects of its own criteria."""

    def mine(layers):
        raise raised

    def declare(function):
        monkeypatch.setitem(
            registry._declared,
            (registry.Criterion, "mine"),
            registry.Criterion("mine", function, state="none", parameters=()),
        )

    layers = Measurements(DecoderLayers(3))
    declare(mine)
    options = PruningOptions(criterion="mine")
    raised = KeyError("a\nb")
    with pytest.raises(OwnCodeError, match=r"^criterion 'mine', line \d+ of .*, failed: KeyError: ") as told:
        score(layers, options)
    assert told.value.exit_code == 2 and "\n" not in str(told.value) and told.value.__cause__ is raised
    assert "raise raised" in told.value.trace and "scoring.py" not in told.value.trace
    assert pickle.loads(pickle.dumps(told.value)).trace == told.value.trace
    raised = SystemExit(0)  # a criterion that leaves is no success
    with pytest.raises(OwnCodeError, match=r"failed: SystemExit: 0$"):
        score(layers, options)
    for raised in (InputError("no"), MemoryError()):
        with pytest.raises(type(raised)) as ours:
            score(layers, options)
        assert ours.value is raised
    raised = ZeroDivisionError()
    for function in (Callable(), partial(mine)):
        declare(function)
        with pytest.raises(OwnCodeError, match=rf"^criterion 'mine', line \d+ of {__file__}, failed: "):
            score(layers, options)
    declare(mine)
    mine.__module__ = cosine.__name__
    with pytest.raises(ZeroDivisionError):
        score(layers, options)


def test_a_declared_option_that_there_is_not_is_one_sentence(monkeypatch):
    made = registry.Criterion("mine", lambda layers: None, state="none", parameters=("kk",))
    monkeypatch.setitem(registry._declared, (registry.Criterion, "mine"), made)
    with pytest.raises(
        OptionError, match=r"one of parameters of criterion 'mine' is 'kk'; .*did you mean 'k'"
    ):
        score_parameters(PruningOptions(criterion="mine"))


@pytest.fixture
def searches(monkeypatch):
    """(metric, k, unions) of every search for neighbors."""
    calls, of = [], Neighbors.of

    def count(states, k, metric="euclidean", unions="none"):
        calls.append((metric, k, unions))
        return of(states, k, metric, unions)

    monkeypatch.setattr(Neighbors, "of", count)
    return calls


@pytest.fixture
def zigzags_made(monkeypatch):
    """(through, k) of every barcode."""
    calls, barcode = [], topology.neighbors_barcode
    monkeypatch.setattr(
        topology,
        "neighbors_barcode",
        lambda *a, **k: calls.append((k["through"], k["k"])) or barcode(*a, **k),
    )
    return calls


def test_neighbors_are_searched_once_for_all_k(searches, zigzags_made, hidden):
    """Also for criteria that ask for different ones, and each tells what it would have cost alone."""
    hidden.shared_ks = {("euclidean", "intersections"): [3, 4, 5]}
    one = topology.pairwise(hidden, _with(k="4"))
    assert searches == [("euclidean", 5, "none")] and hidden.reused_seconds == 0
    both = topology.pairwise(hidden, _with(k="3+4"))
    assert hidden.reused_seconds > 0
    gardinazzi.score(hidden, _with(k="5"))
    assert len(searches) == 1 and zigzags_made == [("intersections", k) for k in (4, 3, 5)]
    fresh = HiddenStates("residual", hidden.values)
    assert (topology.pairwise(fresh, _with(k="4")).values == one.values).all()
    assert (topology.pairwise(fresh, _with(k="3+4")).values == both.values).all()
    assert searches[1:] == [("euclidean", 4, "none")]
    topology.pairwise(hidden, _with(k="6"))
    assert searches[2:] == [("euclidean", 6, "none")]


def test_a_default_run_searches_each_cloud_once(searches, zigzags_made, sums):
    """All that proposes to the trials, and controls beside; each scores as it does alone."""
    points = np.cumsum(np.random.default_rng(5).normal(size=(LAYERS + 1, 40, 6)), axis=0)
    points[2, 3] = 0  # a token without a direction
    values = torch.from_numpy(points.astype(np.float32))
    asked = [o for o in proposers(PruningOptions(sparsity=0.4)) if o.points == "tokens"]
    asked += [replace(o, criterion="static", k="12") for o in asked if o.criterion == "knn_overlap"]
    assert {"zigzag_trials", "zigzags", "unions", "knn_overlap", "topology_angle_influence"} < {
        o.criterion for o in asked
    }
    asked = [resolved(o) for o in asked]
    found = Measurements(DecoderLayers(LAYERS), {"residual": HiddenStates("residual", values)}, sums)
    share_distances(found, asked)
    together = [score(found, options) for options in asked]
    assert sorted(searches) == [("cosine", 15, "none"), ("euclidean", 15, "adjacent")]
    assert sorted(zigzags_made) == [(t, k) for t in ("intersections", "unions") for k in (7, 10, 15)]
    for options, shared in zip(asked, together, strict=True):
        alone = Measurements(found.layers, {"residual": HiddenStates("residual", values)}, sums)
        assert scores_to_json(score(alone, options)) == scores_to_json(shared)


def test_k_that_there_are_too_few_points_for_is_no_concern_of_other_criteria(hidden):
    """A proposer that asks for too many neighbors proposes nothing; the others go on."""
    found = Measurements(DecoderLayers(LAYERS), {"residual": hidden})
    few, many = (_with(criterion="topology", points="tokens", k=k) for k in ("4", str(SAMPLES)))
    alone = topology.pairwise(HiddenStates("residual", hidden.values), few)
    share_distances(found, [few, many])
    assert (score(found, few).values == alone.values).all()
    with pytest.raises(InputError, match=f"k is '{SAMPLES}', but the calibration samples have only"):
        score(found, many)


def _with(**changes):
    return PruningOptions(**{"sparsity": 0.4, "state": "residual", "k": "3", "samples": SAMPLES, **changes})


@pytest.mark.parametrize(
    "order",
    [
        ("intersections", "unions", "zigzags"),
        ("zigzags", "unions", "zigzag_influence"),
        ("unions", "knn_overlap", "zigzags", "static"),
    ],
)
def test_neighbors_are_searched_once_for_each_zigzag_of_criteria_that_share_it(searches, hidden, sums, order):
    k = {"intersections": "4", "unions": "4", "zigzags": "3+5", "zigzag_influence": "3+4"}
    k |= {"knn_overlap": "3", "static": "5"}
    asked = [PruningOptions(criterion=name, k=k[name], state="residual") for name in order]
    found = Measurements(DecoderLayers(LAYERS), {"residual": hidden}, sums)
    share_distances(found, asked)
    for options in asked:
        score(found, options)
    assert sorted(searches) == [("cosine", 5, "none"), ("euclidean", 5, "adjacent")]


@pytest.mark.parametrize("name", ["static", "shuffled", "knn_overlap"])
def test_several_k_are_the_mean_from_one_search(searches, hidden, name):
    def values(k):
        found = Measurements(DecoderLayers(LAYERS), {"residual": HiddenStates("residual", hidden.values)})
        return score(found, PruningOptions(criterion=name, k=k, state="residual", metric="euclidean")).values

    single = [values(k) for k in ("3", "5")]
    searches.clear()
    assert np.allclose(values("3+5"), np.mean(single, axis=0)) and searches == [("euclidean", 5, "none")]


def test_barcodes_stay_with_the_scores(hidden) -> None:
    """As few numbers as hold them: the scores can be computed again from what is kept."""
    scores = topology.pairwise(hidden, replace(OPTIONS, k="3+5"))
    found = scores_from_json(json.loads(json.dumps(scores_to_json(scores))))
    barcodes = [Barcode.from_counted(kept["bars"], kept["states"]) for kept in found.barcodes]
    assert [kept["k"] for kept in found.barcodes] == [3, 5] and all(len(b) for b in barcodes)
    assert np.allclose(found.values, np.mean([jaccard(b, 1) for b in barcodes], axis=0))
    with pytest.raises(InputError, match="counted bars"):
        Barcode.from_counted([(1, 0, 3, 0)], 5)


def test_topology_and_angle_cost_in_units_of_a_typical_layer(hidden):
    """Computed pair by pair from the two similarities."""
    shape = topology.pairwise(hidden, OPTIONS).values
    angle = angular.score(hidden).values
    found = topology_angle.score(hidden, OPTIONS).values
    steps = [sorted(-np.log(max(v[i, i + 1], 1e-12)) for i in range(LAYERS)) for v in (shape, angle)]
    units = [one[len(one) // 2] for one in steps]
    for i in range(LAYERS + 1):
        for j in range(LAYERS + 1):
            costs = [
                -np.log(max(v[i, j], 1e-12)) / unit for v, unit in zip((shape, angle), units, strict=True)
            ]
            assert found[i, j] == pytest.approx(np.exp(-sum(costs) / 2), rel=1e-6)


def test_a_translation_that_all_samples_share_is_seen_with_the_angle_alone():
    """Layer 3 moves every sample by one long vector: no neighbor changes, but every direction does."""
    rng = np.random.default_rng(0)
    states = np.repeat(rng.normal(size=(1, 40, 16)), 9, axis=0) + 3
    states += 0.2 * rng.normal(size=states.shape).cumsum(0)
    states[4:, :, 0] += 60
    steady = HiddenStates("residual", torch.from_numpy(states.astype(np.float32)))
    options = PruningOptions(state="residual", k="4", samples=40)
    shape, both = topology.pairwise(steady, options), topology_angle.score(steady, options)
    steps = np.diagonal(shape.values, 1)
    assert steps[3] > 0.8 * np.median(steps)
    assert np.argmin(np.diagonal(both.values, 1)) == 3
    for drop in range(1, 4):
        assert 3 not in select(both, drop)


def test_three_views_are_the_mean_of_three_costs(hidden, sums):
    """Layer by layer, each in units of its median; the cheapest go first."""
    found = topology_angle_influence.score(hidden, sums, OPTIONS)
    shape, angle = topology.pairwise(hidden, OPTIONS).values, angular.score(hidden).values
    views = [[v[i, i + 1] for i in range(LAYERS)] for v in (shape, angle)] + [[0.1, 0.5, 0.99, 0.4, 0.2]]
    costs = [[-np.log(max(value, 1e-12)) for value in view] for view in views]
    units = [sorted(one)[LAYERS // 2] for one in costs]
    expected = [sum(c[i] / u for c, u in zip(costs, units, strict=True)) / 3 for i in range(LAYERS)]
    np.testing.assert_allclose(-np.log(np.diagonal(found.values, 1)), expected, rtol=1e-6)
    assert select(found, 2, rule="rank") == tuple(sorted(np.argsort(expected)[:2]))
    chain = topology_angle_influence.chained(np.array([0.5, 0.8, 1.0]))
    np.testing.assert_allclose(chain[0], [1, 0.5, 0.4, 0.4])
    np.testing.assert_allclose(chain, chain.T)


def test_states_that_are_all_alike_are_balanced_without_a_division_by_zero():
    alike = np.ones((4, 4))
    np.testing.assert_array_equal(topology_angle.balanced(alike, alike), alike)


def test_a_typical_layer_of_a_deep_decoder_lies_away_from_either_end():
    """From 8 layers on the two at each end have no say in the unit, however dear they are."""
    for depth, inner in ((8, slice(2, 6)), (9, slice(2, 7)), (7, slice(0, 7))):
        costs = np.full(depth, 0.3) + 0.01 * np.arange(depth)
        costs[[0, 1, -2, -1]] = 5.0
        one = topology_angle_influence.chained(np.exp(-costs))
        other = topology_angle_influence.chained(np.exp(-np.arange(1.0, depth + 1)))
        found = -np.log(np.diagonal(topology_angle.balanced(one, other), 1))
        expected = (
            costs / np.median(costs[inner])
            + np.arange(1.0, depth + 1) / np.median(np.arange(1.0, depth + 1)[inner])
        ) / 2
        np.testing.assert_allclose(found, expected)


def test_unions_are_the_jaccard_of_their_barcode(hidden, states):
    expected = jaccard(union_zigzag_barcode(states, k=3, dimensions=(1,)), 1)
    np.testing.assert_array_equal(unions.score(hidden, OPTIONS).values, expected)
    assert (expected != topology.pairwise(hidden, OPTIONS).values).any()


def test_unions_see_a_cloud_that_turns_and_intersections_do_not():
    """Layer 3 turns the whole cloud, which keeps every distance."""
    rng = np.random.default_rng(0)
    cloud = rng.normal(size=(60, 8)).astype(np.float32)
    turn = np.linalg.qr(rng.normal(size=(8, 8)))[0].astype(np.float32)
    states = HiddenStates("residual", torch.from_numpy(np.stack([cloud] * 4 + [cloud @ turn] * 3)))
    options = PruningOptions(state="residual", k="5", samples=60)
    moved = np.diagonal(unions.score(states, options).values, 1)
    still = np.diagonal(topology.pairwise(states, options).values, 1)
    # Where a cloud stays, its points are their own nearest neighbors in the union: every step costs as much.
    assert moved[3] < np.delete(moved, 3).min() / 5 and np.ptp(np.delete(moved, 3)) == 0
    assert (still == 1).all()


def test_zigzags_are_the_mean_rank_of_both(hidden, states):
    found = zigzags.score(hidden, OPTIONS).values
    one = np.diagonal(jaccard(zigzag_barcode(states, k=3, metric="cosine", dimensions=(1,)), 1), 1)
    other = np.diagonal(jaccard(union_zigzag_barcode(states, k=3, dimensions=(1,)), 1), 1)
    np.testing.assert_allclose(found, (rankdata(one) + rankdata(other)) / 2 - 1)


def test_zigzag_influence_is_the_mean_rank_of_shape_and_place(hidden, sums, states):
    found = zigzag_influence.score(hidden, sums, OPTIONS).values
    shape = np.diagonal(jaccard(zigzag_barcode(states, k=3, metric="cosine", dimensions=(1,)), 1), 1)
    np.testing.assert_allclose(found, (rankdata(shape) + rankdata(sums.token_cosine)) / 2 - 1)


def test_knn_overlap_counts_common_neighbors(hidden, states):
    found = knn_overlap.score(hidden, OPTIONS).values
    distances = ((states[:, :, None] - states[:, None]) ** 2).sum(-1)
    near = [[set(np.argsort(row)[1:4]) for row in one] for one in distances]
    for i in range(LAYERS + 1):
        for j in range(LAYERS + 1):
            shared = [len(a & b) / 3 for a, b in zip(near[i], near[j], strict=True)]
            assert found[i, j] == pytest.approx(np.mean(shared))


def test_cka_is_the_papers_ratio_of_norms(hidden, states):
    found = cka.score(hidden).values
    for i in range(LAYERS + 1):
        for j in range(LAYERS + 1):
            x, y = (states[s].astype(float) - states[s].mean(0) for s in (i, j))
            norm = np.linalg.norm
            expected = norm(x.T @ y) ** 2 / norm(x.T @ x) / norm(y.T @ y)
            assert found[i, j] == pytest.approx(expected, abs=1e-5)
    moved = HiddenStates("residual", hidden.values * 3 + 7)
    np.testing.assert_allclose(cka.score(moved).values, found, atol=1e-5)


@pytest.mark.parametrize("name", ["intersections", "knn_overlap", "static", "shuffled"])
def test_a_token_that_is_zero_at_some_state_is_no_point_of_a_cosine_cloud(name):
    """Some models embed a few tokens as zero, which has no direction."""
    values = torch.randn(4, 30, 8, generator=torch.Generator().manual_seed(0))
    values[0, 5] = 0
    rest = torch.cat([values[:, :5], values[:, 6:]], 1)
    options = PruningOptions(criterion=name, points="tokens", metric="cosine", k="3", dimension=0)
    whole, without = (registry.get(name)(HiddenStates("residual", each), options) for each in (values, rest))
    assert np.array_equal(whole.values, without.values)
    with pytest.raises(InputError, match="sample 5 of state 0 is zero"):
        registry.get(name)(HiddenStates("residual", values), replace(options, points="samples"))
