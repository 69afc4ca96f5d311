"""The statistics against independent computation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from lmms_topoprune.comparison import statistics as st


def enumerated_p(differences: list[float]) -> float:
    """All sign patterns, one by one."""
    observed = abs(sum(differences))
    totals = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    return sum(t >= observed - 1e-12 for t in totals) / len(totals)


@pytest.mark.parametrize("seed", range(5))
def test_few_units_are_enumerated(seed):
    differences = np.random.default_rng(seed).normal(0.4, 1, 9)
    assert st.sign_flip_p(differences) == pytest.approx(enumerated_p(list(differences)))


def test_equal_sizes_are_mcnemars_exact_test():
    better, worse = 14, 5
    differences = np.array([1.0] * better + [-1.0] * worse + [0.0] * 30)
    expected = 2 * stats.binom.cdf(worse, better + worse, 0.5)
    assert st.sign_flip_p(differences) == pytest.approx(expected)


def test_many_units_agree_with_scipys_permutation_test():
    differences = np.random.default_rng(3).normal(0.15, 1, 80)
    other = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=20_000, rng=np.random.default_rng(1)
    )
    assert st.sign_flip_p(differences) == pytest.approx(other.pvalue, abs=0.015)


def test_no_difference_is_no_evidence():
    assert st.sign_flip_p(np.zeros(10)) == 1.0


def test_p_values_are_uniform_when_there_is_nothing_to_find():
    rng = np.random.default_rng(0)
    p_values = [st.sign_flip_p(rng.normal(0, 1, 12)) for _ in range(300)]
    assert stats.kstest(p_values, "uniform").pvalue > 0.01


def test_bootstrap_mean_matches_the_binomial_standard_error():
    scores = np.array([1.0] * 300 + [0.0] * 100)
    drawn = st.resample(np.full(400, 1 / 400), 4000, seed=0) @ scores
    assert drawn.mean() == pytest.approx(0.75, abs=0.003)
    assert drawn.std() == pytest.approx(math.sqrt(0.75 * 0.25 / 400), rel=0.06)


def test_bootstrap_interval_agrees_with_scipy():
    rng = np.random.default_rng(1)
    a, b = rng.random(200), rng.random(200)
    rows = st.resample(np.full(200, 1 / 200), 4000, seed=0)
    ours = st.percentile_interval(st.retention(rows @ a, rows @ b))
    theirs = stats.bootstrap(
        (a, b),
        lambda x, y, axis: x.mean(axis) / y.mean(axis),
        paired=True,
        vectorized=True,
        n_resamples=4000,
        method="percentile",
        rng=np.random.default_rng(2),
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_weights_are_respected_and_rows_sum_to_one():
    rows = st.resample(np.array([0.5, 0.25, 0.25]), 500, seed=0)
    assert rows.sum(axis=1) == pytest.approx(np.ones(500))
    assert rows.mean(axis=0)[0] > 1.5 * rows.mean(axis=0)[1]


def test_pairing_narrows_the_interval():
    """Two runs that differ in 5 of 400 documents: drawing them apart would hide the difference."""
    dense = np.random.default_rng(0).integers(0, 2, 400).astype(float)
    pruned = dense.copy()
    pruned[np.flatnonzero(dense)[:5]] = 0
    weights = np.full(400, 1 / 400)
    rows, others = st.resample(weights, 2000, 0), st.resample(weights, 2000, 1)
    paired = st.percentile_interval(rows @ pruned - rows @ dense)
    unpaired = st.percentile_interval(rows @ pruned - others @ dense)
    assert paired.high < 0 < unpaired.high


def test_holm_worked_example():
    assert st.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert st.holm([]) == []


def test_corrected_retention():
    assert float(st.corrected_retention(np.float64(0.7), np.float64(0.9), 0.5)) == pytest.approx(0.5)
    assert math.isnan(float(st.corrected_retention(np.float64(0.7), np.float64(0.5), 0.5)))
    assert math.isnan(float(st.retention(np.float64(0.3), np.float64(0.0))))


def test_interval_of_nothing_is_not_a_number():
    assert math.isnan(st.percentile_interval(np.array([math.nan, math.nan, 1.0])).low)


def test_strata_keep_their_share_and_are_resampled_within():
    """Two categories of very different size and score: their mix is no noise, since it is fixed."""
    strata = ["a"] * 90 + ["b"] * 10
    scores = np.array([1.0] * 90 + [0.0] * 10)
    weights = np.array([1 / 180] * 90 + [1 / 20] * 10)
    assert st.bootstrap_scores(scores[None], weights, 500, 0, strata) == pytest.approx(np.full((1, 500), 0.5))
    assert np.ptp(st.bootstrap_scores(scores[None], weights, 500, 0)) > 0.2


def test_stratified_bootstrap_is_the_mean_of_categories_redrawn_one_by_one():
    rng = np.random.default_rng(4)
    groups = [rng.random(30), rng.random(12) / 2]
    strata = ["a"] * 30 + ["b"] * 12
    weights = np.array([1 / 60] * 30 + [1 / 24] * 12)
    ours = st.bootstrap_scores(np.concatenate(groups)[None], weights, 20_000, 0, strata)[0]
    theirs = np.mean([g[rng.integers(0, len(g), (20_000, len(g)))].mean(1) for g in groups], axis=0)
    assert ours.mean() == pytest.approx(theirs.mean(), abs=0.002)
    assert np.percentile(ours, [2.5, 97.5]) == pytest.approx(np.percentile(theirs, [2.5, 97.5]), abs=0.004)


def test_in_pieces_as_in_one(monkeypatch):
    scores, weights = np.random.default_rng(0).random((3, 50)), np.full(50, 1 / 50)
    whole = st.bootstrap_scores(scores, weights, 300, 0)
    assert whole == pytest.approx(scores @ st.resample(weights, 300, 0).T)
    monkeypatch.setattr(st, "NUMBERS", 50 * 7)
    assert st.bootstrap_scores(scores, weights, 300, 0) == pytest.approx(whole)


def test_many_units_of_few_sizes_agree_with_scipys_permutation_test():
    """As of tasks with other weights and half points for pairs: signs of equal sizes are drawn together."""
    rng = np.random.default_rng(5)
    differences = rng.choice([-0.5, -0.25, 0.25, 0.5, 1.0], 60) / rng.choice([100, 240], 60)
    other = stats.permutation_test(
        (differences,), np.sum, permutation_type="samples", n_resamples=50_000, rng=np.random.default_rng(1)
    )
    assert st.sign_flip_p(differences) == pytest.approx(other.pvalue, abs=0.01)


def test_holm_agrees_with_its_definition():
    """The smallest p times m, the next times m - 1, ..., never less than the one before."""
    rng = np.random.default_rng(0)
    for p_values in rng.random((50, 6)) ** 2:
        order = np.argsort(p_values)
        expected = np.maximum.accumulate(np.minimum(1, p_values[order] * np.arange(6, 0, -1)))
        assert np.array(st.holm(p_values))[order] == pytest.approx(expected)


def test_holm_keeps_the_share_of_false_alarms():
    """Six true null hypotheses: with Holm any is rejected in 5 % of the worlds, without in a quarter."""
    rng = np.random.default_rng(1)
    worlds = rng.random((4000, 6))
    alarms = np.mean([min(st.holm(p)) < 0.05 for p in worlds])
    assert alarms == pytest.approx(0.05, abs=0.012)
    assert np.mean(worlds.min(1) < 0.05) > 0.2


def test_intervals_cover_the_truth():
    """Of the difference of two runs on 80 documents, drawn from a known world."""
    rng = np.random.default_rng(2)
    covered = 0
    for world in range(200):
        easy = rng.random(80)
        scores = np.stack([(easy > 0.2) * 1.0, (easy > 0.35) * 1.0])
        drawn = st.bootstrap_scores(scores, np.full(80, 1 / 80), 400, world)
        covered += -0.15 in st.percentile_interval(drawn[1] - drawn[0])
    assert 0.88 <= covered / 200 <= 0.99
