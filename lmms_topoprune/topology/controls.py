"""Controls: homology without the zigzag, and the zigzag without the order of the layers."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from lmms_topoprune.topology.barcode import Barcode
from lmms_topoprune.topology.neighbors import Ints, Neighbors
from lmms_topoprune.topology.points import checked
from lmms_topoprune.topology.zigzag import zigzag_barcode


def static_betti(states: Any, *, k: int, metric: str = "euclidean") -> Ints:
    """(S, 2): the Betti numbers 0 and 1 of each state's flag complex by itself.

    `states` are (S, N, d), or their Neighbors if those were found already.
    """
    from lmms_topoprune.topology.flag_zigzag import homologies  # compiled on import

    neighbors = states if isinstance(states, Neighbors) else Neighbors.of(states, k, metric)
    found = homologies(lambda state: neighbors.graph(state, k), neighbors.states)
    return np.array([[homology.betti(p) for p in (0, 1)] for homology in found], dtype=np.int64)


def shuffled_barcode(
    states: Any, *, k: int, seed: int, metric: str = "euclidean", dimensions: Collection[int] = (0, 1)
) -> tuple[Barcode, Ints]:
    """The barcode of the states in a random order, and that order: place i holds state order[i]."""
    states = checked(states, k, metric)
    order = np.random.default_rng(seed).permutation(len(states))
    return zigzag_barcode(states[order], k=k, metric=metric, dimensions=dimensions), order
