"""Three views of a layer together: relations between samples, their direction, and every token's own turn.

Homology is blind to a translation that all samples share, the angle between states at one token to what
happens at the others, block influence (Men et al., arXiv 2403.03853) to anything but single layers' cosines.
A layer goes that all three can spare. The combination is this project's own.
"""

from __future__ import annotations

import numpy as np

from lmms_topoprune.calibration.states import HiddenStates, TokenSums
from lmms_topoprune.criteria import angular, block_influence, topology
from lmms_topoprune.criteria.topology_angle import Floats, balanced
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.registry import criterion
from lmms_topoprune.selection import TINY, PairScores


@criterion(
    "topology_angle_influence",
    summary="topology, angle and block influence, balanced",
    builds_on=(topology.pairwise, angular.score, block_influence.score),
    sums=("token_cosine",),
    parameters=("k", "dimension", "metric"),
    selection="rank",
    defaults={"token": "mean", "protect_massive": True},
)
def score(states: HiddenStates, sums: TokenSums, options: PruningOptions) -> PairScores:
    """The topological Jaccard, the angular similarity and block influence of two states, balanced."""
    shapes = topology.pairwise(states, options)
    angles = angular.score(states)
    values = balanced(shapes.values, angles.values, chained(sums.token_cosine))
    return PairScores(values, "topology_angle_influence", shapes.barcodes)


def chained(steps: Floats) -> Floats:
    """Similarities of neighboring states (L,) multiplied from state i to state j (S, S)."""
    costs = np.concatenate([[0], np.cumsum(-np.log(np.clip(steps, TINY, 1)))])
    return np.asarray(np.exp(-np.abs(costs[:, None] - costs)))
