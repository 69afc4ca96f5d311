"""H0 and H1 of the two zigzags of flag complexes, state by state.

Both alternate between large complexes and small ones, each of which lies in its two neighbors:

    K_0 > K_0 n K_1 < K_1 > ... < K_(S-1)                           the intersections are small
    (empty) > K_0 < K_01 > K_1 < ... < K_(S-2)(S-1) > K_(S-1) < (empty)      the states are small

so that one procedure serves both.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, combinations

import numpy as np
from numpy.typing import NDArray

from lmms_topoprune.topology._kernels.column_reduction import backward, forward
from lmms_topoprune.topology._kernels.edge_classes import fill, positions
from lmms_topoprune.topology.complexes import Graph
from lmms_topoprune.topology.points import thread_count

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]


@dataclass(frozen=True)
class Basis:
    """An ordered basis of one space.

    Attributes:
        vectors: (n, words) over GF(2), one bit a slot; the lowest elements differ.
        owner: (64 * words,) the vector with this lowest element, -1 for none.
        birth: (n,) index at which each vector's bar begins.
    """

    vectors: Words
    owner: Ints
    birth: Ints

    @classmethod
    def units(cls, live: NDArray[np.bool_]) -> Basis:
        """The basis of the first space: a unit vector for each live slot."""
        slots = np.flatnonzero(live)
        basis = cls(*_empty(len(slots), live, 0))
        basis.vectors[np.arange(len(slots)), slots // 64] = np.uint64(1) << (slots % 64).astype(np.uint64)
        basis.owner[slots] = np.arange(len(slots))
        return basis

    def ended(self, index: int) -> Ints:
        """(n, 2): the bars if the module ends before this index."""
        return np.stack([self.birth, np.full_like(self.birth, index)], axis=1)


def advance(
    basis: Basis, left: Words, right: Words, live: NDArray[np.bool_], index: int
) -> tuple[Basis, Ints]:
    """Go from a large complex over a small one, which lies in both, to the next large one.

    Args:
        basis: of the large complex.
        left, right: (m, words) images of the small one's basis in the two large ones; left is overwritten.
        live: (64 * words,) the next large complex's slots.
        index: the small complex's index.

    Returns:
        The next large complex's basis, and the bars (bars, 2) that ended.
    """
    n, m = len(basis.birth), len(left)
    wide = -(-n // 64)
    rows = np.concatenate([np.zeros((m, wide), dtype=np.uint64), right], axis=1)
    work = np.full((4, n + m), -1, dtype=np.int64)
    entered = backward(basis.vectors, basis.owner, basis.birth, left, rows, work, index)
    size = int(live.sum())  # one row more is scratch space
    scratch, owner, birth = _empty(size + 1, live, index + 1)
    count = forward(rows, wide, entered, work, scratch, owner, birth)
    vectors, birth = scratch[:size], birth[:size]
    slots = np.flatnonzero(live & (owner < 0))
    fresh = np.arange(count, count + len(slots))
    vectors[fresh, slots // 64] = np.uint64(1) << (slots % 64).astype(np.uint64)
    owner[slots] = fresh
    lost, killed = basis.birth[work[2, :n] < 0], work[1, :entered][work[3, :entered] < 0]
    bars = np.concatenate(
        [np.stack([lost, np.full_like(lost, index)]), np.stack([killed, np.full_like(killed, index + 1)])],
        axis=1,
    )
    return Basis(vectors, owner, birth), bars.T


def _empty(n: int, live: NDArray[np.bool_], birth: int) -> tuple[Words, Ints, Ints]:
    vectors = np.zeros((n, len(live) // 64), dtype=np.uint64)
    return vectors, np.full(len(live), -1, dtype=np.int64), np.full(n, birth, dtype=np.int64)


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


AHEAD = 4  # complexes that wait for their turn; bounds the memory
EMPTY = FlagHomology.of(Graph(np.zeros(1, dtype=np.int64), np.zeros(0, dtype=np.int64)), 0)


def intersection_bars(graphs: Sequence[Graph], dimensions: Collection[int] = (0, 1)) -> Ints:
    """(bars, 3) dimension, birth, death for the graphs of S states on the same N vertices."""

    def complex_at(index: int) -> Graph:
        state = index // 2
        return graphs[state] if index % 2 == 0 else graphs[state] & graphs[state + 1]

    return bars_of(homologies(complex_at, 2 * len(graphs) - 1), dimensions)


def union_bars(
    graphs: Sequence[Graph], union: Callable[[int], Graph], dimensions: Collection[int] = (0, 1)
) -> Ints:
    """(bars, 3) dimension, birth, death for the graphs of S states on N vertices each.

    union(l) is the graph of states l and l + 1 together, on the vertices 0..N-1 and N..2N-1.
    """

    def complex_at(index: int) -> Graph:
        return graphs[index // 2] if index % 2 == 0 else union(index // 2)

    found = homologies(complex_at, 2 * len(graphs) - 1)
    return bars_of(chain([EMPTY], found, [EMPTY]), dimensions, -1, len(graphs[0].start) - 1)


def alive_in_pairs(
    graphs: Sequence[Graph], joint: Callable[[int, int], Graph], shift: int, dimensions: Sequence[int]
) -> Ints:
    """A (dimensions, S, S): bars over the whole zigzag of two states, Betti numbers on the diagonal.

    joint(i, j) is the intersection of their graphs (shift 0), or the graph of their union, in which the
    vertices of j begin at `shift`.
    """
    states = list(homologies(graphs.__getitem__, len(graphs)))
    shared = np.empty((len(dimensions), len(graphs), len(graphs)), dtype=np.int64)
    for i, state in enumerate(states):
        shared[:, i, i] = [state.betti(p) for p in dimensions]

    def compare(pair: tuple[int, int]) -> None:
        i, j = pair
        line = [states[i], FlagHomology.of(joint(i, j), states[i].labels.shape[1]), states[j]]
        bars = bars_of([EMPTY, *line, EMPTY], dimensions, -1, shift) if shift else bars_of(line, dimensions)
        lasting = bars[(bars[:, 1] == 0) & (bars[:, 2] == 3), 0]
        shared[:, i, j] = shared[:, j, i] = [(lasting == p).sum() for p in dimensions]

    with ThreadPoolExecutor(thread_count()) as pool:
        list(pool.map(compare, combinations(range(len(graphs)), 2)))
    return shared


def homologies(complex_at: Callable[[int], Graph], count: int) -> Iterator[FlagHomology]:
    """The homology of complexes 0, 1, ...: computed ahead by other threads, handed out in order."""
    with ThreadPoolExecutor(thread_count()) as pool:
        waiting: deque[Future[FlagHomology]] = deque()
        words = 2

        def compute(index: int, guess: int) -> FlagHomology:
            return FlagHomology.of(complex_at(index), guess)

        for index in range(count):
            waiting.append(pool.submit(compute, index, words))
            if index == 0 or len(waiting) > AHEAD:
                found = waiting.popleft().result()
                words = max(words, found.labels.shape[1])
                yield found
        for future in waiting:
            yield future.result()


def bars_of(
    complexes: Iterable[FlagHomology], dimensions: Collection[int], first: int = 0, shift: int = 0
) -> Ints:
    """(bars, 3): of a line of complexes large, small, large, small, ..., large, numbered from `first`.

    Vertex v of a small complex is vertex shift + v of the large one before it and v of the one after it.
    """
    line = iter(complexes)
    before = next(line)
    bases = {p: Basis.units(before.slots(p)) for p in dimensions}
    bars: list[Ints] = []
    index = first
    for small, after in zip(line, line, strict=True):
        index += 2
        for p in dimensions:
            left, right = small.images(p, before, shift), small.images(p, after)
            bases[p], ended = advance(bases[p], left, right, after.slots(p), index - 1)
            bars.append(_rows(p, ended))
        before = after
    bars += [_rows(p, bases[p].ended(index + 1)) for p in dimensions]
    return np.concatenate(bars)


def _rows(p: int, bars: Ints) -> Ints:
    return np.insert(bars, 0, p, axis=1)
