"""Nearest neighbors within states and in unions of two states, for every k at once, and their graphs."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from lmms_topoprune.errors import OptionError, unknown
from lmms_topoprune.topology.complexes import Graph
from lmms_topoprune.topology.distances import Distances, Lists, nearest_in_union
from lmms_topoprune.topology.points import Cloud, checked, thread_count, whole

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
