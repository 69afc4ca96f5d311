"""What a barcode says about states: Betti numbers, shared features, persistence images.

Definitions: Gardinazzi et al., ICML 2025 (arXiv 2410.11042), but for the Jaccard, which is this project's.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import gudhi
import numpy as np
from numpy.typing import NDArray

from lmms_topoprune.errors import InputError, OptionError
from lmms_topoprune.topology.barcode import Barcode

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
SAFE = 600.0  # exp of it is far from overflow, and so is a sum of such numbers
LIMIT = 1e9  # every alpha beyond it gives the same weights in float64


def state_bars(barcode: Barcode, p: int) -> tuple[Ints, Ints, Ints]:
    """First and last state of each kind of p-bar, and how many bars there are of it.

    Bars that touch no state (odd index only) are left out.
    """
    bars = barcode.bars(p)
    first, last = (bars[:, 0] + 1) // 2, (bars[:, 1] - 1) // 2
    counts = np.zeros((barcode.states, barcode.states), dtype=np.int64)
    held = first <= last
    np.add.at(counts, (first[held], last[held]), 1)
    rows, columns = np.nonzero(counts)
    return rows, columns, counts[rows, columns]


def alive(barcode: Barcode, p: int) -> Ints:
    """A (S, S): number of p-bars alive at state i and at state j."""
    first, last, count = state_bars(barcode, p)
    shared = np.zeros((barcode.states, barcode.states), dtype=np.int64)
    np.add.at(shared, (first, last), count)
    # A bar [f, l] counts for i <= j iff f <= i and j <= l.
    shared = np.cumsum(np.cumsum(shared, axis=0)[:, ::-1], axis=1)[:, ::-1]
    upper = np.triu(shared)
    return upper + np.triu(upper, 1).T


def betti(barcode: Barcode, p: int) -> Ints:
    """(S,): number of p-bars alive at each state."""
    return np.diagonal(alive(barcode, p)).copy()


def jaccard(barcode: Barcode, p: int) -> Floats:
    """J (S, S) = A(i, j) / (beta(i) + beta(j) - A(i, j)), in 0..1.

    Two states without features count as alike.
    """
    return jaccard_of_counts(alive(barcode, p))


def jaccard_of_counts(shared: Ints) -> Floats:
    """J (S, S) from the numbers of features that states i and j share, with beta on the diagonal."""
    counts = shared.astype(float)
    numbers = np.diagonal(counts)
    union = numbers[:, None] + numbers[None, :] - counts
    return np.divide(counts, union, out=np.ones_like(counts), where=union > 0)


def consistency(barcode: Barcode, p: int) -> Floats:
    """Z (S, S) = A(i, j) / beta(i): which share of the features at i is alive at j; 0 where beta is 0."""
    shared = alive(barcode, p).astype(float)
    numbers = np.broadcast_to(np.diagonal(shared)[:, None], shared.shape)
    return np.divide(shared, numbers, out=np.zeros_like(shared), where=numbers > 0)


def inter_layer_persistence(barcode: Barcode, p: int, alpha: float = 0.0) -> Floats:
    """Zbar (S,): mean over j != l of Z(l, j), weighted by |l - j| ** alpha."""
    compared(barcode)
    weight = distance_weights(_gaps(barcode.states, barcode.states), alpha, axis=1)
    return (weight * consistency(barcode, p)).sum(1) / weight.sum(1)


def released_persistence(barcode: Barcode, p: int = 1) -> Floats:
    """(S,): mean over all j of A(l, j) / beta(j), Gardinazzi's score as released.

    The paper's text divides by beta(l) and leaves out j = l; only the code's form gives the layers that
    were published (criteria.gardinazzi.released_layers).
    """
    compared(barcode)
    return consistency(barcode, p).mean(0)


def compared(barcode: Barcode) -> None:
    """Refuse a barcode that leaves nothing to compare.

    Raises:
        InputError: it has fewer than two states.
    """
    if barcode.states < 2:
        raise InputError(
            f"the barcode has {barcode.states} state; allowed: at least 2, since a score compares states"
        )


def distance_weights(gaps: Floats, alpha: float, axis: int | None) -> Floats:
    """gaps ** alpha, and 0 where a gap is 0.

    An alpha so large that this would overflow or vanish gives the same weights divided by the largest
    one along `axis` (None: of all), which no weighted mean sees.

    Raises:
        OptionError: alpha is not finite.
    """
    if not math.isfinite(alpha):
        raise OptionError(f"alpha is {alpha}; allowed: any finite number")
    logs = np.log(np.maximum(gaps, 1))
    if abs(float(alpha)) * float(logs.max(initial=0)) < SAFE:
        return np.where(gaps > 0, np.maximum(gaps, 1) ** alpha, 0.0)
    powers = np.where(gaps > 0, min(max(alpha, -LIMIT), LIMIT) * logs, -np.inf)
    largest = powers.max(axis=axis, keepdims=True)
    return np.exp(powers - np.where(np.isfinite(largest), largest, 0.0))


def _gaps(rows: int, columns: int) -> Floats:
    """(rows, columns): |i - j|."""
    return np.abs(np.subtract.outer(np.arange(rows), np.arange(columns))).astype(float)


def effective_persistence_image(barcode: Barcode, p: int) -> Ints:
    """EPI (S, S + 1): number of p-bars by birth and death state.

    b, d -> ceil(b / 2), ceil(d / 2): the state at which a bar appears and the first one without it, S if
    it lives to the end. Bars within one state (b = d after rounding) are gone.
    """
    first, last, count = state_bars(barcode, p)
    image = np.zeros((barcode.states, barcode.states + 1), dtype=np.int64)
    np.add.at(image, (first, last + 1), count)
    return image


def births_relative_frequency(barcode: Barcode, p: int, alpha: float = 0.0) -> Floats:
    """B (S,): share of the bars born at each state, a bar from l to l' weighing |l - l'| ** alpha."""
    image = effective_persistence_image(barcode, p)
    weight = distance_weights(np.where(image > 0, _gaps(*image.shape), 0.0), alpha, axis=None)
    births = (weight * image).sum(1)
    return births / births.sum() if births.sum() > 0 else births


def smooth_persistence_image(
    barcode: Barcode, p: int, sigma: float = 1.0, weight: Callable[[Floats], Floats] = np.asarray
) -> Floats:
    """(S, S): sum over bars of w(tau) exp(-((u - b)^2 + (v - tau)^2) / (2 sigma^2)).

    Rows u are birth states 0..S-1, columns v lifetimes 1..S in states; b and tau = d - b are a bar's own,
    from the effective persistence image. The default weight is tau itself.

    Raises:
        OptionError: sigma is not positive.
    """
    if not sigma > 0:
        raise OptionError(f"sigma is {sigma}; allowed: sigma > 0")
    image = effective_persistence_image(barcode, p)
    birth, death = np.nonzero(image)
    lifetime = (death - birth).astype(float)
    grid = np.arange(barcode.states, dtype=float)
    with np.errstate(over="ignore"):  # a tiny sigma leaves the bars' own places, as in the limit
        rows = np.exp(-0.5 * ((grid[:, None] - birth) / sigma) ** 2)
        columns = np.exp(-0.5 * ((grid[:, None] + 1 - lifetime) / sigma) ** 2)
    return (rows * (image[birth, death] * weight(lifetime))) @ columns.T


def activity(
    barcode: Barcode, p: int, sigma: float = 1.0, weight: Callable[[Floats], Floats] = np.asarray
) -> Floats:
    """(S,): the smooth persistence image summed over lifetimes: how much is born around each state."""
    return smooth_persistence_image(barcode, p, sigma, weight).sum(1)


def bottleneck_distance(one: Barcode, other: Barcode, p: int) -> float:
    """Bottleneck distance of the p-bars of two barcodes, in indices (GUDHI)."""
    return float(gudhi.bottleneck_distance(one.bars(p).astype(float), other.bars(p).astype(float), 0.0))
