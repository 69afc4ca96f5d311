"""H0 and H1 of the zigzag of flag complexes, state by state."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import numpy as np
from numpy.typing import NDArray

from lmms_topoprune.topology.classes import EdgeClasses, loops, part_slots, parts
from lmms_topoprune.topology.module import Basis, advance

Ints = NDArray[np.int64]
AHEAD = 4  # complexes that wait for their turn; bounds the memory


def flag_bars(graphs: NDArray[np.bool_], dimensions: frozenset[int] = frozenset((0, 1))) -> Ints:
    """(bars, 3) dimension, birth, death in dimensions 0 and 1 for graphs (S, N, N)."""
    complexes = _classes(graphs)
    here = next(complexes)
    bases = [Basis.units(part_slots(here)), Basis.units(here.live)]
    bars: tuple[list[Ints], list[Ints]] = ([], [])
    for s, (between, there) in enumerate(zip(complexes, complexes, strict=True)):
        for p in dimensions:
            if p == 0:
                maps = parts(between, here), parts(between, there), part_slots(there)
            else:
                maps = loops(between, here), loops(between, there), there.live
            bases[p], ended = advance(bases[p], *maps, 2 * s + 1)
            bars[p].append(ended)
        here = there
    for p in dimensions:
        bars[p].append(bases[p].ended(2 * len(graphs) - 1))
    return np.concatenate([np.insert(np.concatenate(bars[p]), 0, p, axis=1) for p in sorted(dimensions)])


def _classes(graphs: NDArray[np.bool_]) -> Iterator[EdgeClasses]:
    """K_0, K_0 n K_1, K_1, ...: computed ahead by other threads, handed out in order."""
    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        waiting: deque[Future[EdgeClasses]] = deque()
        words = 2
        for index in range(2 * len(graphs) - 1):
            waiting.append(pool.submit(partial(_one, graphs, index, words)))
            if index == 0 or len(waiting) > AHEAD:
                found = waiting.popleft().result()
                words = found.labels.shape[1]
                yield found
        for future in waiting:
            yield future.result()


def _one(graphs: NDArray[np.bool_], index: int, words: int) -> EdgeClasses:
    graph = graphs[index // 2] if index % 2 == 0 else graphs[index // 2] & graphs[index // 2 + 1]
    return EdgeClasses.of(graph, words)
