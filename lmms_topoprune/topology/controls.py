"""Controls: homology without the zigzag, and the zigzag without the order of the layers."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmms_topoprune.topology.barcode import Barcode
from lmms_topoprune.topology.neighbors import graphs
from lmms_topoprune.topology.zigzag import checked, zigzag_barcode


def static_betti(states: Any, *, k: int, metric: str = "euclidean") -> NDArray[np.int64]:
    """(S, 2): the Betti numbers 0 and 1 of each state's flag complex by itself."""
    from lmms_topoprune.topology.classes import EdgeClasses  # compiled on import

    found = [EdgeClasses.of(graph) for graph in graphs(checked(states, k, metric), k, metric)]
    return np.array([[(c.parent < 0).sum(), c.live.sum()] for c in found], dtype=np.int64)


def shuffled_barcode(
    states: Any, *, k: int, seed: int, metric: str = "euclidean", dimensions: Collection[int] = (0, 1)
) -> tuple[Barcode, NDArray[np.int64]]:
    """The barcode of the states in a random order, and that order: place i holds state order[i]."""
    states = checked(states, k, metric)
    order = np.random.default_rng(seed).permutation(len(states))
    return zigzag_barcode(states[order], k=k, metric=metric, dimensions=dimensions), order
