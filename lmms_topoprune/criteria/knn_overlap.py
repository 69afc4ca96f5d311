"""Overlap of nearest neighbors: which share of a point's k nearest are the same at two states.

The neighborhood overlap of Doimo et al., "Hierarchical nucleation in deep neural networks", NeurIPS 2020
(arXiv 2007.03506): topology's graphs without topology.
"""

from __future__ import annotations

import numpy as np

from lmms_topoprune.calibration.states import HiddenStates
from lmms_topoprune.criteria.topology import neighbors
from lmms_topoprune.criteria.unions import TOKENS
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.registry import criterion
from lmms_topoprune.selection import Floats, PairScores


@criterion(
    "knn_overlap",
    summary="neighbors that two token clouds share",
    paper="Doimo et al., Hierarchical nucleation in deep neural networks, NeurIPS 2020",
    address="https://arxiv.org/abs/2007.03506",
    parameters=("k", "metric"),
    selection="rank",
    defaults={**TOKENS, "protect_massive": False},
)
def score(states: HiddenStates, options: PruningOptions) -> PairScores:
    """The mean over points of |N_i n N_j| / k; the mean over several k."""
    near = neighbors(states, options).near
    return PairScores(np.mean([_overlap(near[:, :, :k]) for k in options.ks], axis=0), "knn_overlap")


def _overlap(near: np.ndarray) -> Floats:
    """(S, S) for neighbor lists (S, N, k)."""
    count, points, k = near.shape
    found = np.eye(count)
    member = np.zeros((points, points), bool)
    rows = np.arange(points)[:, None]
    for i in range(count):
        member[rows, near[i]] = True
        for j in range(i):
            found[i, j] = found[j, i] = member[rows, near[j]].sum() / (points * k)
        member[rows, near[i]] = False
    return found
