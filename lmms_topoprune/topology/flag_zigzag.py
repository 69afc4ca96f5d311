"""H0 and H1 of the zigzag of flag complexes, state by state."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lmms_topoprune.topology.classes import EdgeClasses, loops, part_slots, parts
from lmms_topoprune.topology.module import Basis, advance

Ints = NDArray[np.int64]


def flag_bars(graphs: NDArray[np.bool_], dimensions: frozenset[int] = frozenset((0, 1))) -> Ints:
    """(bars, 3) dimension, birth, death in dimensions 0 and 1 for graphs (S, N, N)."""
    here = EdgeClasses.of(graphs[0])
    bases = [Basis.units(part_slots(here)), Basis.units(here.live)]
    bars: tuple[list[Ints], list[Ints]] = ([], [])
    for s in range(1, len(graphs)):
        words = here.labels.shape[1]
        between, there = EdgeClasses.of(graphs[s - 1] & graphs[s], words), EdgeClasses.of(graphs[s], words)
        maps = (
            (parts(between, here), parts(between, there), part_slots(there)),
            (loops(between, here), loops(between, there), there.live),
        )
        for p in dimensions:
            bases[p], ended = advance(bases[p], *maps[p], 2 * s - 1)
            bars[p].append(ended)
        here = there
    for p in dimensions:
        bars[p].append(bases[p].ended(2 * len(graphs) - 1))
    return np.concatenate([np.insert(np.concatenate(bars[p]), 0, p, axis=1) for p in sorted(dimensions)])
