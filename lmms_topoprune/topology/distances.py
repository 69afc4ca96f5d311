"""Distances in point clouds with an error bound, and the nearest neighbors that follow from them exactly.

A float32 Gram matrix (BLAS, or the GPU that holds the states) gives every distance up to a worst-case
rounding error. Where that leaves a doubt the distance is computed anew in float64; equal distances are
ordered by index. How BLAS adds up therefore has no influence on the neighbors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from lmms_topoprune.topology.points import UNIT, Cloud, Doubles, Floats, inner_products, slack

Ints = NDArray[np.int64]
Lists = NDArray[np.int32]
FLOOR = 1e-30  # products that vanish in float32; the longest squared length is above 1e-20


@dataclass(frozen=True)
class Nearest:
    """index (N, k) int32, squared distances (N, k) in units of 4 ** exponent, and their errors."""

    index: Lists
    square: Doubles
    error: Doubles

    def rescaled(self, factor: float, first: int) -> Nearest:
        """With another unit, and `first` the number of the first point."""
        index = self.index + np.int32(first)
        return Nearest(index, self.square * factor, self.error * factor)


@dataclass(frozen=True)
class Distances:
    """What is known about the distances within one cloud, or between M points out of it.

    Attributes:
        terms: (3, M) as in _terms; products: (M, M) float32.
    """

    cloud: Cloud
    points: Floats
    weight: Doubles
    terms: Doubles
    products: NDArray[np.float32]

    @classmethod
    def of(cls, cloud: Cloud) -> Distances:
        terms = _terms(cloud, cloud.square, 1.0, 0.0)
        return cls(cloud, cloud.points, cloud.weight, terms, inner_products(cloud, cloud))

    def subset(self, chosen: Ints) -> Distances:
        """The same for some of the points; no distance is computed anew."""
        products = np.ascontiguousarray(self.products[np.ix_(chosen, chosen)])
        terms = np.ascontiguousarray(self.terms[:, chosen])
        return Distances(self.cloud, self.points[chosen], self.weight[chosen], terms, products)

    def nearest(self, k: int) -> Nearest:
        """The k nearest of each point among the others."""
        nobody = Nearest(np.zeros((len(self.points), 0), dtype=np.int32), *np.zeros((2, len(self.points), 0)))
        here = self.points, self.weight, 0
        return _nearest(self.products, self.terms, self.terms, nobody, here, here, self.cloud.exponent, k)


def nearest_in_union(one: Cloud, other: Cloud, near: Nearest, far: Nearest, k: int) -> Lists:
    """(2N, k): the k nearest of each point in the union of two clouds.

    With the clouds' own middles a and b taken off, and shift = a - b,
    |x + shift - y|^2 = (|x|^2 + 2 x.shift + |shift|^2) + (|y|^2 - 2 y.shift) - 2 x.y.
    """
    from lmms_topoprune.topology._kernels.nearest import project  # compiled on import

    n, exponent = len(one.points), max(one.exponent, other.exponent)
    p, q = (float(np.ldexp(1.0, cloud.exponent - exponent)) for cloud in (one, other))
    shift = one.middle * p - other.middle * q
    apart = float(np.sqrt(shift @ shift))
    x = p * (p * one.square + 2 * project(one.centered, shift)) + apart**2
    y = q * (q * other.square - 2 * project(other.centered, shift))
    rows, columns = _terms(one, x, p, apart), _terms(other, y, q, apart)
    products = inner_products(one, other)
    if p * q < 1:
        products *= np.float32(p * q)
    here, there = (one.points, one.weight, 0), (other.points, other.weight, n)
    turned = np.ascontiguousarray(products.T)
    return np.concatenate(
        [
            _nearest(products, rows, columns, near.rescaled(p * p, 0), here, there, exponent, k).index,
            _nearest(turned, columns, rows, far.rescaled(q * q, n), there, here, exponent, k).index,
        ]
    )


def _terms(cloud: Cloud, value: Doubles, shrink: float, apart: float) -> Doubles:
    """(3, N): each point's share of squared distances, its length, and its share of their errors."""
    length = shrink * cloud.length
    rounded = 2.1 * UNIT * (2 * length + apart) * length
    added = len(cloud.middle) * 2.0**-50 * (length + apart) ** 2
    return np.stack([value, length, rounded + added + FLOOR])


def _nearest(
    products: NDArray[np.float32],
    rows: Doubles,
    columns: Doubles,
    known: Nearest,
    here: tuple[Any, Doubles, int],
    there: tuple[Any, Doubles, int],
    exponent: int,
    k: int,
) -> Nearest:
    """The k nearest of the rows' points among the columns' points and those known already."""
    from lmms_topoprune.topology._kernels.nearest import candidates, in_order, measure  # compiled

    n, m = products.shape
    own, width = here is there, here[0].shape[1]
    scratch = np.empty((3, m)), np.empty(min(m, max(64, 2 * k))), np.empty(k)
    question = products, slack(width), rows, columns, own, there[2]
    seeds = known.index.astype(np.int64), known.square, known.error
    room, found = 3 * n * k + 2 * m, cast(tuple[Any, ...], ())
    while not found or candidates(*question, *seeds, k, *scratch, *found) < n:
        kinds = (np.int64, np.float64, np.float64, np.int64)
        found = np.empty(n + 1, dtype=np.int64), *(np.empty(room, dtype=kind) for kind in kinds)
        room *= 2
    nearest = Nearest(np.empty((n, k), dtype=np.int32), np.empty((n, k)), np.empty((n, k)))
    measure(*found, *here, *there, 2.0**-exponent)
    in_order(*found, nearest.index, nearest.square, nearest.error)
    return nearest
