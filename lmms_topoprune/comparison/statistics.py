"""Paired statistics over documents: bootstrap intervals, sign-flip tests, Holm's correction.

A unit is what is resampled: a document, or an image with its two questions where a task is scored in pairs.
Two runs are compared unit by unit, so that what is easy or hard for both does not count as noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]

ROUNDS = 2000
FLIPS = 20_000
EXACT_UNITS = 16
NUMBERS = 2**22
"""Bootstrap weights held at once: 32 MiB."""


@dataclass(frozen=True)
class Interval:
    """A 95 % interval; not a number at either end where it cannot be formed."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return bool(self.low <= value <= self.high)


def percentile_interval(values: Floats, level: float = 0.95) -> Interval:
    """The central `level` share of bootstrap values (rounds,); values that are not finite are left out."""
    finite = values[np.isfinite(values)]
    if len(finite) < 0.5 * len(values) or len(finite) == 0:
        return Interval(float("nan"), float("nan"))
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(finite, [tail, 100 - tail])
    return Interval(float(low), float(high))


def resample(
    weights: Floats, rounds: int, seed: int | np.random.Generator, strata: Sequence[str] = ()
) -> Floats:
    """Bootstrap weights (rounds, U) of U units with the given weights (U,); each row sums to their sum.

    Every run of a task is averaged with the same rows: that is what makes the bootstrap paired. Units are
    drawn within their stratum (U,), whose share of the score is fixed: MME has as many categories as it has.
    """
    rng = np.random.default_rng(seed)
    shares = np.empty((rounds, len(weights)))
    names = np.asarray(strata or [""] * len(weights))
    for name in np.unique(names):
        own = np.flatnonzero(names == name)
        counts = rng.multinomial(len(own), np.full(len(own), 1 / len(own)), size=rounds)
        drawn = counts * weights[own]
        shares[:, own] = drawn * (weights[own].sum() / drawn.sum(axis=1, keepdims=True))
    return shares


def bootstrap_scores(
    scores: Floats, weights: Floats, rounds: int, seed: int, strata: Sequence[str] = ()
) -> Floats:
    """Scores (R, rounds) of R runs with unit scores (R, U), all resampled alike; in little memory."""
    rng = np.random.default_rng(seed)
    chunk = max(1, NUMBERS // len(weights))
    sizes = [min(chunk, rounds - start) for start in range(0, rounds, chunk)]
    return np.concatenate([scores @ resample(weights, size, rng, strata).T for size in sizes], axis=1)


def sign_flip_p(differences: Floats, seed: int = 0) -> float:
    """Two-sided p-value of a paired permutation test on the sum of weighted differences (U,).

    Under the null hypothesis the sign of every difference is arbitrary. Differences of one size make it
    McNemar's exact test (binomial); few units are enumerated; otherwise signs are drawn FLIPS times.
    Source: Good, Permutation, Parametric, and Bootstrap Tests of Hypotheses, 2005, section 3.
    """
    moved = differences[differences != 0]
    if len(moved) == 0:
        return 1.0
    sizes, counts = _sizes(np.abs(moved))
    if len(sizes) == 1:
        return float(stats.binomtest(int((moved > 0).sum()), len(moved), 0.5).pvalue)
    observed = abs(moved.sum()) - 1e-9 * np.abs(moved).sum()
    if len(moved) <= EXACT_UNITS:
        signs = 1 - 2 * ((np.arange(2 ** len(moved))[:, None] >> np.arange(len(moved))) & 1)
        return float((np.abs(signs @ moved) >= observed).mean())
    rng = np.random.default_rng(seed)
    totals = np.zeros(FLIPS)
    for size, count in zip(sizes, counts, strict=True):
        # The signs of `count` differences of one size add up to a binomial number.
        totals += size * (2.0 * rng.binomial(count, 0.5, size=FLIPS) - count)
    # The observed signs are one of the patterns.
    return float((np.abs(totals) >= observed).sum() + 1) / (FLIPS + 1)


def _sizes(values: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Distinct sizes but for rounding, and how many there are of each."""
    scale = values.max()
    sizes, counts = np.unique(np.round(values / scale, 9), return_counts=True)
    return sizes * scale, counts


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given.

    Source: Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    adjusted = [float("nan")] * len(p_values)
    running = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Elementwise quotient, not a number where the denominator is zero."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    result = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=result, where=np.abs(denominator) > 1e-12)
    return result


def retention(score: Floats, dense: Floats) -> Floats:
    """The share of the dense score that is kept."""
    return ratio(score, dense)


def corrected_retention(score: Floats, dense: Floats, chance: float) -> Floats:
    """(score - chance) / (dense - chance): 1 keeps everything, 0 guesses; undefined if dense only guesses."""
    kept = ratio(score - chance, dense - chance)
    return np.where(np.asarray(dense) - chance > 1e-12, kept, np.nan)
