"""Controls that take one ingredient away from the topology criterion."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lmms_topoprune.calibration.states import HiddenStates
from lmms_topoprune.criteria.topology import neighbors, pairwise
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.registry import criterion
from lmms_topoprune.selection import PairScores
from lmms_topoprune.topology import Neighbors, jaccard, neighbors_barcode, static_betti

topology_reversed = replace(
    pairwise,
    name="reverse",
    summary="topology turned round, as reverse:topology",
    reversed=True,
)


@criterion(
    "static",
    summary="topology without the zigzag: Betti numbers",
    parameters=("k", "dimension", "metric"),
    selection="path",
    defaults={"protect_massive": True},
)
def static_homology(states: HiddenStates, options: PruningOptions) -> PairScores:
    """Without the zigzag: only the Betti numbers of the states are compared, min / max.

    This is the largest value the topological Jaccard could take if every feature that two states
    could share were the same one. Two states without any feature count as alike.
    """
    found = neighbors(states, options)
    numbers = [static_betti(found, k=k, dimensions=(options.dimension,))[:, 0] for k in options.ks]
    return PairScores(np.mean([_ratio(each.astype(float)) for each in numbers], axis=0), "static")


def _ratio(numbers: np.ndarray) -> np.ndarray:
    low, high = np.minimum.outer(numbers, numbers), np.maximum.outer(numbers, numbers)
    return np.divide(low, high, out=np.ones_like(low), where=high > 0)


@criterion(
    "shuffled",
    summary="topology with the states in random order",
    parameters=("k", "dimension", "metric", "seed"),
    selection="path",
    defaults={"protect_massive": True},
)
def shuffled(states: HiddenStates, options: PruningOptions) -> PairScores:
    """Without the order of the layers: the zigzag runs through the states in a random order.

    A feature then has to survive unrelated states in between, so what is left of the score does
    not come from following features through the depth.
    """
    near = neighbors(states, options).near
    order = np.random.default_rng(options.seed).permutation(len(near))
    places = np.argsort(order)
    dimension, mixed = options.dimension, Neighbors(near[order], {})
    found = [neighbors_barcode(mixed, k=k, dimensions=(dimension,)) for k in options.ks]
    values = np.mean([jaccard(barcode, dimension) for barcode in found], axis=0)
    return PairScores(values[np.ix_(places, places)], "shuffled")
