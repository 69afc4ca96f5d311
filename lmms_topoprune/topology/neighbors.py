"""Distances, nearest neighbors within states and in unions of two for every k at once, and their graphs."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from lmms_topoprune.errors import OptionError, unknown
from lmms_topoprune.topology.complexes import Graph
from lmms_topoprune.topology.points import (
    UNIT,
    Cloud,
    Doubles,
    Floats,
    checked,
    inner_products,
    slack,
    thread_count,
    whole,
)

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


Ints = NDArray[np.int64]
UNIONS = ("none", "adjacent", "all")


@dataclass(frozen=True)
class Neighbors:
    """The nearest neighbors of every point of every state; those for a smaller k are the first k.

    Attributes:
        near: (S, N, K) the K nearest points of the same state, nearest first.
        between: for pairs of states (i, j), (2N, K): the K nearest points of the union, in which state
            i's points are 0..N-1 and state j's N..2N-1.
    """

    near: Lists
    between: dict[tuple[int, int], Lists]

    @classmethod
    def of(cls, states: Any, k: int, metric: str = "euclidean", unions: str = "none") -> Neighbors:
        """Of states (S, N, d), a NumPy array or a torch tensor on any device, up to the k-th neighbor.

        Args:
            states, k, metric: as in zigzag_barcode.
            unions: which unions of two states are searched: "none", "adjacent" (what the zigzag through
                unions needs) or "all" (what its direct pairs need).

        Raises:
            InputError: the states are not (S, N, d), or a point is not finite (or zero, for "cosine").
            OptionError: k, metric or unions is not allowed.
        """
        if unions not in UNIONS:
            raise unknown("unions", unions, UNIONS)
        states = checked(states, k, metric)
        found: list[Any] = [None] * len(states)
        between: dict[tuple[int, int], Lists] = {}

        def own(state: int, spaces: list[NDArray[np.float32]]) -> None:
            found[state] = Distances.of(Cloud.of(states[state], state, metric, spaces[0])).nearest(k)

        def union(pair: tuple[int, int], spaces: list[NDArray[np.float32]]) -> None:
            clouds = [Cloud.of(states[s], s, metric, space) for s, space in zip(pair, spaces, strict=True)]
            between[pair] = nearest_in_union(clouds[0], clouds[1], found[pair[0]], found[pair[1]], k)

        pairs = combinations(range(len(states)), 2) if unions != "none" else ()
        _each(own, range(len(states)), states.shape[1:])
        _each(union, [(i, j) for i, j in pairs if unions == "all" or j == i + 1], states.shape[1:])
        return cls(np.stack([nearest.index for nearest in found]), between)

    @property
    def states(self) -> int:
        return len(self.near)

    def graph(self, state: int, k: int) -> Graph:
        """The kNN graph of one state, symmetrized by union.

        Raises:
            OptionError: k is more than the neighbors that were found.
        """
        return Graph.of_lists(self._first(k, self.near[state]))

    def union_graph(self, i: int, j: int, k: int) -> Graph:
        """Of the points of both states: each state's kNN graph, and the kNN graph of all of them.

        Raises:
            OptionError: k is more than the neighbors that were found, or this union was not searched.
        """
        if (i, j) not in self.between:
            raise OptionError(
                f"the union of states {i} and {j} was not searched; allowed: unions='all' for all pairs, "
                "'adjacent' for states that follow each other"
            )
        n = self.near.shape[1]
        own = np.concatenate([self._first(k, self.near[i]), self._first(k, self.near[j]) + np.int32(n)])
        return Graph.of_lists(np.concatenate([own, self._first(k, self.between[i, j])], axis=1))

    def _first(self, k: int, lists: Lists) -> Lists:
        if not whole(k) or not 1 <= k <= lists.shape[1]:
            raise OptionError(
                f"k is {k}; allowed: whole numbers from 1 to {lists.shape[1]}, which were found"
            )
        return lists[:, :k]


def _each(work: Callable[[Any, list[Any]], None], tasks: Any, shape: tuple[int, int]) -> None:
    """Do the tasks on all threads, each with scratch memory for two clouds of its own."""
    if not tasks:
        return
    workers = max(1, min(thread_count(), len(tasks)))

    def share(first: int) -> None:
        spaces = [np.empty(shape, dtype=np.float32) for _ in range(2)]
        for task in tasks[first::workers]:
            work(task, spaces)

    # One BLAS thread a worker: two pools of threads would wait for each other.
    with _libraries().limit(limits=1, user_api="blas"), ThreadPoolExecutor(workers) as pool:
        list(pool.map(share, range(workers)))


@cache
def _libraries() -> ThreadpoolController:
    """Those with threads, NumPy's BLAS among them; to look for them takes milliseconds."""
    return ThreadpoolController()
