"""Controls that take one ingredient away from the topology criterion."""

from __future__ import annotations

import numpy as np

from lmms_topoprune.calibration.states import HiddenStates
from lmms_topoprune.criteria.topology import barcodes, jaccard_of
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.selection import PairScores
from lmms_topoprune.topology import Barcode, betti


def static_homology(states: HiddenStates, options: PruningOptions) -> PairScores:
    """Without the zigzag: only the Betti numbers of the states are compared, min / max.

    This is the largest value the topological Jaccard could take if every feature that two states
    could share were the same one. Two states without any feature count as alike.
    """
    found = barcodes(states, options).values()
    return PairScores(np.mean([_betti_ratio(barcode, options) for barcode in found], axis=0), "static")


def _betti_ratio(barcode: Barcode, options: PruningOptions) -> np.ndarray:
    numbers = betti(barcode, options.dimension).astype(float)
    low, high = np.minimum.outer(numbers, numbers), np.maximum.outer(numbers, numbers)
    return np.divide(low, high, out=np.ones_like(low), where=high > 0)


def shuffled(states: HiddenStates, options: PruningOptions) -> PairScores:
    """Without the order of the layers: the zigzag runs through the states in a random order.

    A feature then has to survive unrelated states in between, so what is left of the score does
    not come from following features through the depth.
    """
    points = states.points
    order = np.random.default_rng(options.seed).permutation(len(points))
    places = np.argsort(order)
    values = np.mean([jaccard_of(points[order], k, options) for k in options.ks], axis=0)
    return PairScores(values[np.ix_(places, places)], "shuffled")
