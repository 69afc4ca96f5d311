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
