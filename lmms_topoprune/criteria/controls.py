"""Controls that take one ingredient away from the topology criterion."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lmms_topoprune.calibration.states import HiddenStates
from lmms_topoprune.criteria.topology import cloud, pairwise
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.registry import criterion
from lmms_topoprune.selection import PairScores
from lmms_topoprune.topology import Neighbors, jaccard, static_betti, zigzag_barcodes

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
    neighbors = Neighbors.of(cloud(states, options), max(options.ks), options.metric)
    numbers = [static_betti(neighbors, k=k, dimensions=(options.dimension,))[:, 0] for k in options.ks]
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
    points = cloud(states, options)
    order = np.random.default_rng(options.seed).permutation(len(points))
    places = np.argsort(order)
    dimension = options.dimension
    found = zigzag_barcodes(points[order], ks=options.ks, metric=options.metric, dimensions=(dimension,))
    values = np.mean([jaccard(barcode, dimension) for barcode in found], axis=0)
    return PairScores(values[np.ix_(places, places)], "shuffled")
