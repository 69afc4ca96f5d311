"""H0 and H1 of one flag complex, and the maps that inclusions of flag complexes induce."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmms_topoprune.topology._kernels.adjacency import positions
from lmms_topoprune.topology._kernels.edge_classes import fill
from lmms_topoprune.topology.graphs import Graph

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class FlagHomology:
    """Homology over GF(2) of the flag complex of a graph with N vertices and E edges.

    Attributes:
        order: (N,) vertices as they were added.
        parent: (N,) the vertex each one was joined to, -1 for the first of its component.
        ends: (64 * words, 2) the edge that generates a slot of H1, (-1, -1) for an empty slot.
        row: (2E,) the row in `labels` of each entry of graph.near.
        labels: (E + 2, words) classes of the edges, one bit a slot; an edge of the forest has class 0.
    """

    graph: Graph
    order: Ints
    parent: Ints
    ends: Ints
    row: NDArray[np.int32]
    labels: Words

    @classmethod
    def of(cls, graph: Graph, words: int = 2) -> FlagHomology:
        """`words` is a first guess."""
        entries = len(graph.near)
        while True:
            row = np.empty(entries, dtype=np.int32)
            labels = np.zeros((entries // 2 + 2, words), dtype=np.uint64)
            ends = np.full((64 * words, 2), -1, dtype=np.int64)
            work = np.zeros((8, graph.vertices + 1), dtype=np.int64)
            queue = np.empty((3, entries + graph.vertices), dtype=np.int64)
            if fill(graph.start, graph.near, row, labels, ends, work, queue):
                return cls(graph, work[0, :-1], work[1, :-1], ends, row, labels)
            words *= 2

    @property
    def part(self) -> Ints:
        """(N,): index of each vertex's component."""
        part = np.empty(len(self.order), dtype=np.int64)
        part[self.order] = np.cumsum(self.parent[self.order] < 0) - 1  # added one after the other
        return part

    def slots(self, dimension: int) -> Bools:
        """(64 * words,): the slots that form the basis of H0 or H1."""
        if dimension == 1:
            return self.ends[:, 0] >= 0
        count = int((self.parent < 0).sum())
        return np.arange(-(-count // 64) * 64) < count

    def betti(self, dimension: int) -> int:
        return int(self.slots(dimension).sum())

    def images(self, dimension: int, outer: FlagHomology, first: int = 0) -> Words:
        """(betti, words): the basis of H0 or H1 in the classes of a complex that holds this one or is empty.

        Vertex v of this complex is vertex first + v of the outer one.
        """
        if outer.graph.vertices == 0:  # stands for the end of a zigzag, where everything dies
            return np.zeros((self.betti(dimension), 0), dtype=np.uint64)
        return self._parts_in(outer, first) if dimension == 0 else self._loops_in(outer, first)

    def _parts_in(self, outer: FlagHomology, first: int) -> Words:
        place = outer.part[first + self.order[self.parent[self.order] < 0]]
        out = np.zeros((len(place), len(outer.slots(0)) // 64), dtype=np.uint64)
        out[np.arange(len(place)), place // 64] = np.uint64(1) << (place % 64).astype(np.uint64)
        return out

    def _loops_in(self, outer: FlagHomology, first: int) -> Words:
        """A loop is a generating edge and the paths in the forest from its ends to the root."""
        joined = self.parent >= 0
        up = np.where(joined, self.parent, np.arange(len(joined)))
        potential = np.zeros((len(up), outer.labels.shape[1]), dtype=np.uint64)
        potential[joined] = outer._classes(first + np.flatnonzero(joined), first + up[joined])
        while not np.array_equal(
            up, up[up]
        ):  # doubles the length of the summed paths until all end at a root
            potential ^= potential[up]
            up = up[up]
        u, v = self.ends[self.slots(1)].T
        return potential[u] ^ potential[v] ^ outer._classes(first + u, first + v)

    def _classes(self, tails: Ints, heads: Ints) -> Words:
        """(edges, words): the classes of edges of this complex."""
        place = np.empty(len(tails), dtype=np.int64)
        positions(self.graph.start, self.graph.near, tails, heads, place)
        return self.labels[self.row[place]]
