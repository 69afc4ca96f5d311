"""Paired statistics over documents: bootstrap intervals, sign-flip tests, Holm's correction.

A unit is what is scored: a document, or an image with its two questions where a task is scored in pairs. A
cluster is what is drawn and flipped: an image with all of its questions, or else the unit itself. Two runs
are compared unit by unit, so that what is easy or hard for both does not count as noise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ROUNDS = 2000
FLIPS = 20_000
EXACT_UNITS = 16
NUMBERS = 2**22
"""Bootstrap weights held at once: 32 MiB."""
ROUNDING = 1e-9
"""Differences of scores below it are none."""
SMALL_STRATUM = 5
"""Categories with fewer clusters are drawn together: one or two say nothing of their own spread."""
PRIOR = 0.25
"""Weight of each corner (0, 0), (0, 1), (1, 0), (1, 1) of two runs' scores; see `Draws`."""
FEWEST = 5
"""Clusters below which scores without bounds have no interval."""


@dataclass(frozen=True)
class Interval:
    """A 95 % interval; not a number at either end where it cannot be formed."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return bool(self.low <= value <= self.high)


NONE = Interval(float("nan"), float("nan"))


def percentile_interval(values: Floats) -> Interval:
    """The central 95 % of bootstrap values (rounds,); values that are not finite are left out."""
    finite = values[np.isfinite(values)]
    if len(finite) < 0.5 * len(values) or len(finite) == 0:
        return NONE
    low, high = np.percentile(finite, [2.5, 97.5])
    return Interval(float(low), float(high))


def codes(names: Sequence[str], count: int) -> Ints:
    """(count,) whole numbers, equal where names are; each its own where there are no names."""
    if not len(names):
        return np.arange(count)
    number: dict[str, int] = {}
    return np.array([number.setdefault(name, len(number)) for name in names], dtype=np.int64)


def resample(
    weights: Floats,
    rounds: int,
    seed: int | np.random.Generator,
    strata: Sequence[str] = (),
    clusters: Sequence[str] = (),
) -> Floats:
    """Bootstrap weights (rounds, U) of U units with the given weights (U,); each row sums to their sum.

    Clusters get exponential weights, as Rubin's Bayesian bootstrap draws them (The Bayesian Bootstrap,
    Annals of Statistics 1981): unlike counts these never leave a round without the few units that differ.
    Every run of a task is averaged with the same rows: that is what makes the bootstrap paired. Clusters are
    drawn within their stratum (U,), whose share of the score is fixed: MME has as many categories as it
    has; strata of few clusters are drawn together. Where clusters weigh differently, their mean weights are
    kept.
    """
    rng = np.random.default_rng(seed)
    own = codes(clusters, len(weights))
    stratum = _drawn_together(strata, own)
    sums = np.bincount(own, weights=weights)
    shares = np.empty((rounds, len(sums)))
    of_cluster = np.zeros(len(sums), dtype=np.int64)
    of_cluster[own] = stratum
    for number in range(of_cluster.max() + 1):
        members = np.flatnonzero(of_cluster == number)
        total = sums[members].sum()
        shape = sums[members] * total / (sums[members] ** 2).sum()  # 1 where all weigh the same
        even = np.allclose(shape, 1)
        size = (rounds, len(members))
        drawn = rng.standard_exponential(size) if even else rng.gamma(shape, size=size)
        drawn *= total / drawn.sum(axis=1, keepdims=True)
        if len(members) == len(sums):
            shares = drawn
        else:
            shares[:, members] = drawn
    if not len(clusters):
        return shares
    return shares[:, own] * (weights / sums[own])


def _drawn_together(strata: Sequence[str], clusters: Ints) -> Ints:
    """(U,) number of the stratum that a unit is drawn in."""
    if not len(strata):
        return np.zeros(len(clusters), dtype=np.int64)
    sizes = Counter(name for name, _ in set(zip(strata, clusters.tolist(), strict=True)))
    small = {name for name, size in sizes.items() if size < SMALL_STRATUM}
    if 1 <= sum(sizes[name] for name in small) < SMALL_STRATUM and len(small) < len(sizes):
        small.add(min((name for name in sizes if name not in small), key=lambda name: sizes[name]))
    return codes(["" if name in small else f" {name}" for name in strata], len(clusters))


def bootstrap_scores(
    scores: Floats,
    weights: Floats,
    rounds: int,
    seed: int,
    strata: Sequence[str] = (),
    clusters: Sequence[str] = (),
) -> Floats:
    """Scores (R, rounds) of R runs with unit scores (R, U), all resampled alike; in little memory."""
    rng = np.random.default_rng(seed)
    chunk = max(1, NUMBERS // len(weights))
    sizes = [min(chunk, rounds - start) for start in range(0, rounds, chunk)]
    parts = [scores @ resample(weights, size, rng, strata, clusters).T for size in sizes]
    return np.concatenate(parts, axis=1)


@dataclass(frozen=True)
class Draws:
    """Bootstrap scores of all runs on one task, with a little that was not observed.

    Where few units were seen, or all agree, resampling them alone claims certainty. So each round also
    has, with random weights of mean PRIOR each, the four corners that two runs' scores can take. For one
    run that is Jeffreys' interval for a proportion (Brown, Cai, DasGupta, Interval Estimation for a Binomial
    Proportion, Statistical Science 2001), for two runs close to Agresti and Min's for a paired difference
    (Statistics in Medicine 2005); it vanishes as units grow in number. Scores without bounds get none.

    Attributes:
        scores: (R, rounds) of the runs.
        mass: (rounds,) weight of what was observed, about the number of clusters.
        corners: (4, rounds) weights of (0, 0), (0, 1), (1, 0), (1, 1); zero for scores without bounds.
        clusters: how many there are, in effect where they weigh differently.
    """

    scores: Floats
    mass: Floats
    corners: Floats
    clusters: float

    @classmethod
    def of(
        cls,
        scores: Floats,
        weights: Floats,
        rounds: int,
        seed: int,
        strata: Sequence[str] = (),
        clusters: Sequence[str] = (),
        bounded: bool = True,
    ) -> Draws:
        """Draws for unit scores (R, U), with the arguments of `resample`."""
        size = effective_clusters(weights, clusters)
        rng = np.random.default_rng([seed, 1])
        corners = rng.gamma(PRIOR, size=(4, rounds)) if bounded else np.zeros((4, rounds))
        return cls(
            bootstrap_scores(scores, weights, rounds, seed, strata, clusters),
            rng.gamma(size, size=rounds),
            corners,
            size,
        )

    def pair(self, run: int, other: int) -> tuple[Floats, Floats]:
        """Scores (rounds,) of two runs, with the corners."""
        total = self.mass + self.corners.sum(axis=0)
        first = self.corners[2] + self.corners[3]
        second = first if run == other else self.corners[1] + self.corners[3]
        return (self.mass * self.scores[run] + first) / total, (
            self.mass * self.scores[other] + second
        ) / total


def effective_clusters(weights: Floats, clusters: Sequence[str] = ()) -> float:
    """How many clusters of equal weight are worth as much: (sum of weights)^2 / sum of their squares."""
    sums = np.bincount(codes(clusters, len(weights)), weights)
    return float(sums.sum() ** 2 / (sums**2).sum())


def sign_flip_p(
    differences: Floats, seed: int = 0, clusters: Sequence[str] | Ints = (), noise: Floats | None = None
) -> float:
    """Two-sided p-value of a paired permutation test on the sum of weighted differences (U,).

    Under the null hypothesis the sign of every cluster's difference is arbitrary. Differences of one size
    make it McNemar's exact test (binomial); few clusters are enumerated; otherwise signs are drawn FLIPS
    times. Source: Good, Permutation, Parametric, and Bootstrap Tests of Hypotheses, 2005, section 3.

    Args:
        differences: (U,) differences times weights.
        seed: of drawn signs.
        clusters: (U,) names or numbers of what is flipped together; each unit by itself if empty.
        noise: (FLIPS,) a further error of the sum under the null hypothesis, such as that between seeds.
    """
    smallest = ROUNDING * np.abs(differences).max(initial=0.0)  # what a cluster's terms leave by rounding
    if len(clusters):
        own = clusters if isinstance(clusters, np.ndarray) else codes(clusters, len(differences))
        differences = np.bincount(own, weights=differences).astype(np.float64)
    moved = differences[np.abs(differences) > smallest]
    if len(moved) == 0 and noise is None:
        return 1.0
    observed = abs(moved.sum()) - ROUNDING * np.abs(moved).sum()
    sizes, counts = _sizes(np.abs(moved))
    if noise is None and len(sizes) == 1:
        better = int((moved > 0).sum())
        return min(1.0, 2 * float(special.bdtr(min(better, len(moved) - better), len(moved), 0.5)))
    if noise is None and len(moved) <= EXACT_UNITS:
        signs = 1 - 2 * ((np.arange(2 ** len(moved))[:, None] >> np.arange(len(moved))) & 1)
        return float((np.abs(signs @ moved) >= observed).mean())
    rng = np.random.default_rng(seed)
    totals = np.zeros(FLIPS) if noise is None else noise.copy()
    for size, count in zip(sizes, counts, strict=True):
        # The signs of `count` differences of one size add up to a binomial number.
        totals += size * (2.0 * rng.binomial(count, 0.5, size=FLIPS) - count)
    # The observed signs are one of the patterns.
    return float((np.abs(totals) >= observed).sum() + 1) / (FLIPS + 1)


def changes(scores: Floats, others: Floats) -> Floats:
    """Differences (U,) of two runs' unit scores; what rounding leaves is none."""
    found: Floats = scores - others
    return np.where(np.abs(found) < ROUNDING, 0.0, found)


def _sizes(values: Floats) -> tuple[Floats, Ints]:
    """Distinct sizes but for rounding, and how many there are of each."""
    if not len(values):
        return values, np.zeros(0, dtype=np.int64)
    scale = values.max()
    sizes, counts = np.unique(np.round(values / scale, 9), return_counts=True)
    return sizes * scale, counts


def seed_noise(scores: Sequence[float], draws: int, seed: int) -> Floats:
    """(draws,) errors of the mean of scores (S,) of S calibration seeds: Student's t with S - 1 degrees."""
    if len(scores) < 2:
        return np.zeros(draws)
    error = float(np.std(scores, ddof=1)) / np.sqrt(len(scores))
    return error * np.random.default_rng([seed, 2]).standard_t(len(scores) - 1, size=draws)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given; what is not a number is no test.

    Source: Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    adjusted = [float("nan")] * len(p_values)
    tests = [i for i in range(len(p_values)) if np.isfinite(p_values[i])]
    running = 0.0
    for rank, index in enumerate(sorted(tests, key=lambda i: p_values[i])):
        running = max(running, min(1.0, (len(tests) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Elementwise quotient, not a number where the denominator is zero."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    result = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=result, where=np.abs(denominator) > 1e-12)
    return result


def retention(score: Floats, dense: Floats) -> Floats:
    """The share of the dense score that is kept; undefined for measures turned negative."""
    return np.where(np.asarray(dense) > 0, ratio(score, dense), np.nan)


def corrected_retention(score: Floats, dense: Floats, chance: float) -> Floats:
    """(score - chance) / (dense - chance): 1 keeps everything, 0 guesses; undefined if dense only guesses."""
    kept = ratio(score - chance, dense - chance)
    return np.where(np.asarray(dense) - chance > 1e-12, kept, np.nan)
