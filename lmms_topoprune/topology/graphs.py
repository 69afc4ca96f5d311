"""Undirected graphs in compressed rows: what zigzags intersect and join."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Graph:
    """A graph without loops on the vertices 0..N-1.

    Attributes:
        start: (N + 1,) where each vertex's neighbors begin.
        near: (2E,) the neighbors, ascending for each vertex.
    """

    start: Ints
    near: Ints

    @classmethod
    def of_lists(cls, lists: NDArray[np.int32]) -> Graph:
        """Vertex v joined to the vertices lists[v]; (N, any), repetitions allowed."""
        from lmms_topoprune.topology._kernels.adjacency import symmetrized  # compiled on import

        start, near = np.zeros(len(lists) + 1, dtype=np.int64), np.empty(2 * lists.size, dtype=np.int64)
        symmetrized(np.ascontiguousarray(lists), start, near, np.empty(len(lists), dtype=np.int64))
        return cls(start, near[: start[-1]].copy())

    @classmethod
    def of_matrix(cls, adjacency: NDArray[np.bool_]) -> Graph:
        """From (N, N), symmetric, False on the diagonal."""
        tails, heads = map(np.ascontiguousarray, np.nonzero(adjacency))
        return cls(np.searchsorted(tails, np.arange(len(adjacency) + 1)), heads)

    @property
    def vertices(self) -> int:
        return len(self.start) - 1

    def __and__(self, other: Graph) -> Graph:
        """The edges of both."""
        from lmms_topoprune.topology._kernels.adjacency import common  # compiled on import

        start, near = np.zeros_like(self.start), np.empty_like(self.near)
        common(self.start, self.near, other.start, other.near, start, near)
        return Graph(start, near[: start[-1]].copy())

    def matrix(self) -> NDArray[np.bool_]:
        """(N, N): the adjacency matrix."""
        adjacency = np.zeros((self.vertices, self.vertices), dtype=bool)
        adjacency[np.repeat(np.arange(self.vertices), np.diff(self.start)), self.near] = True
        return adjacency
