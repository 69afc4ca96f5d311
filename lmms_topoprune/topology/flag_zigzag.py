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
from itertools import chain, combinations

import numpy as np
from numpy.typing import NDArray

from lmms_topoprune.topology.flag_homology import FlagHomology
from lmms_topoprune.topology.graphs import Graph
from lmms_topoprune.topology.interval_decomposition import Basis, advance
from lmms_topoprune.topology.threads import thread_count

Ints = NDArray[np.int64]
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
