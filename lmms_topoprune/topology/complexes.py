"""Complexes as cells: simplices with the maximal runs of states that hold them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmms_topoprune.errors import InputError

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
        from lmms_topoprune.topology._kernels.edge_classes import symmetrized  # compiled on import

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
        from lmms_topoprune.topology._kernels.edge_classes import common  # compiled on import

        start, near = np.zeros_like(self.start), np.empty_like(self.near)
        common(self.start, self.near, other.start, other.near, start, near)
        return Graph(start, near[: start[-1]].copy())

    def matrix(self) -> NDArray[np.bool_]:
        """(N, N): the adjacency matrix."""
        adjacency = np.zeros((self.vertices, self.vertices), dtype=bool)
        adjacency[np.repeat(np.arange(self.vertices), np.diff(self.start)), self.near] = True
        return adjacency


Simplex = tuple[int, ...]


@dataclass(frozen=True)
class Cells:
    """Cells sorted by (first, dimension).

    Attributes:
        dimension, first, last: (cells,); `first` and `last` are states.
        facets: (cells, width) indices of the facets, ended by -1.
        states: S.
    """

    dimension: Ints
    first: Ints
    last: Ints
    facets: Ints
    states: int


def simplices(complex_: Any) -> set[Simplex]:
    """The simplices of a gudhi.SimplexTree or of an iterable of vertex lists, faces added."""
    if hasattr(complex_, "get_simplices"):
        return {tuple(sorted(simplex)) for simplex, _ in complex_.get_simplices()}
    found: set[Simplex] = set()
    for simplex in complex_:
        vertices = sorted(set(simplex))
        if tuple(vertices) not in found:
            for size in range(1, len(vertices) + 1):
                found.update(combinations(vertices, size))
    return found


def cells_of(complexes: Sequence[Iterable[Sequence[int]] | Any], dimension: int) -> Cells:
    """Cells up to `dimension` of the zigzag K_0, K_0 n K_1, K_1, ... of these complexes.

    Raises:
        InputError: no complex is given.
    """
    if len(complexes) == 0:
        raise InputError("complexes is empty; allowed: at least one complex")
    runs: list[tuple[int, int, int, Simplex]] = []
    open_runs: dict[Simplex, int] = {}
    for state in range(len(complexes) + 1):
        held = (
            set()
            if state == len(complexes)
            else {s for s in simplices(complexes[state]) if len(s) <= dimension + 1}
        )
        for simplex in [s for s in open_runs if s not in held]:
            runs.append((open_runs.pop(simplex), len(simplex), state - 1, simplex))
        for simplex in held:
            open_runs.setdefault(simplex, state)
    runs.sort(key=lambda run: (run[0], run[1], run[3]))
    return _linked(runs, len(complexes), dimension)


def _linked(runs: list[tuple[int, int, int, Simplex]], states: int, dimension: int) -> Cells:
    """Find the facets of each cell: the facet's run that holds the cell's first state."""
    facets = np.full((len(runs), dimension + 2), -1, dtype=np.int64)
    newest: dict[Simplex, int] = {}
    for cell, (_, size, _, simplex) in enumerate(runs):
        newest[simplex] = cell
        if size > 1:
            facets[cell, :size] = [newest[f] for f in combinations(simplex, size - 1)]
    table = np.array([(size - 1, first, last) for first, size, last, _ in runs], dtype=np.int64).reshape(
        -1, 3
    )
    return Cells(table[:, 0], table[:, 1], table[:, 2], facets, states)


def flag_simplices(graph: Graph, dimension: int) -> list[Simplex]:
    """The cliques of a graph up to `dimension`."""
    near = [set(row.tolist()) for row in np.split(graph.near, graph.start[1:-1])]
    level: list[Simplex] = [(v,) for v in range(graph.vertices)]
    found = list(level)
    for _ in range(dimension):
        level = [(*s, w) for s in level for w in sorted(set.intersection(*(near[v] for v in s))) if w > s[-1]]
        found += level
    return found
