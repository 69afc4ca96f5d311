"""Topology and angle: the relations between samples, and the direction all of them share.

A translation that all samples have in common leaves every neighbor graph as it is, so homology cannot see it;
the layer that writes a model's massive activations is such a translation. The angle between states (Gromov et
al., arXiv 2403.17887) sees it. The combination is this project's own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lmms_topoprune.calibration.states import HiddenStates
from lmms_topoprune.criteria import angular, topology
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.registry import criterion
from lmms_topoprune.selection import TINY, PairScores

Floats = NDArray[np.float64]
SHALLOW = 8  # fewer layers have no middle of their own


@criterion(
    "topology_angle",
    summary="topology and angle, balanced",
    builds_on=(topology.pairwise, angular.score),
    parameters=("k", "dimension", "metric"),
    selection="path",
    defaults={"token": "mean", "protect_massive": True},
)
def score(states: HiddenStates, options: PruningOptions) -> PairScores:
    """The topological Jaccard and the angular similarity of two states, balanced."""
    shapes = topology.pairwise(states, options)
    angles = angular.score(states)
    return PairScores(balanced(shapes.values, angles.values), "topology_angle", shapes.barcodes)


def balanced(*similarities: Floats) -> Floats:
    """The mean of the costs -log v, each in units of what a typical layer costs, as a similarity (S, S).

    A typical layer is the median one away from either end. Without these units the Jaccard, which falls
    much faster with distance than the angle, would decide alone.
    """
    costs = [_cost(values) / _typical(values) for values in similarities]
    return np.asarray(np.exp(-np.mean(costs, axis=0)))


def _cost(values: Floats) -> Floats:
    return -np.log(np.clip(values, TINY, 1))


def _typical(values: Floats) -> float:
    steps = _cost(np.diagonal(values, 1))
    inner = steps[2:-2] if len(steps) >= SHALLOW else steps
    # Where most layers change nothing, the mean is a unit still; where none changes anything, any is.
    return float(np.median(inner)) or float(steps.mean()) or 1.0
