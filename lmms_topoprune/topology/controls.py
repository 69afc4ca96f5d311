"""Controls: homology without the zigzag, and the zigzag without the order of the layers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from lmms_topoprune.topology.barcode import Barcode
from lmms_topoprune.topology.descriptors import betti
from lmms_topoprune.topology.neighbors import Ints, Neighbors
from lmms_topoprune.topology.points import checked
from lmms_topoprune.topology.zigzag import check_dimensions, neighbors_barcode, zigzag_barcode


def static_betti(
    states: Any, *, k: int, metric: str = "euclidean", dimensions: Sequence[int] = (0, 1)
) -> Ints:
    """(S, dimensions): the Betti numbers of each state's flag complex by itself.

    `states` are (S, N, d), or their Neighbors if those were found already (metric then plays no part).
    """
    check_dimensions(dimensions)
    neighbors = states if isinstance(states, Neighbors) else Neighbors.of(states, k, metric)
    if max(dimensions) > 1:
        single = [Neighbors(near[None], {}) for near in neighbors.near]
        found = [neighbors_barcode(state, k=k, dimensions=dimensions) for state in single]
        return np.array([[betti(barcode, p)[0] for p in dimensions] for barcode in found], dtype=np.int64)
    from lmms_topoprune.topology.flag_zigzag import homologies  # compiled on import

    complexes = homologies(lambda state: neighbors.graph(state, k), neighbors.states)
    return np.array([[found.betti(p) for p in dimensions] for found in complexes], dtype=np.int64)


def shuffled_barcode(
    states: Any, *, k: int, seed: int, metric: str = "euclidean", dimensions: Collection[int] = (0, 1)
) -> tuple[Barcode, Ints]:
    """The barcode of the states in a random order, and that order: place i holds state order[i]."""
    states = checked(states, k, metric)
    order = np.random.default_rng(seed).permutation(len(states))
    return zigzag_barcode(states[order], k=k, metric=metric, dimensions=dimensions), order
