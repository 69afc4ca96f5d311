"""Angular distance between states: drop the block whose input and output point the same way.

Gromov et al., "The Unreasonable Ineffectiveness of the Deeper Layers", ICLR 2025 (arXiv 2403.17887).
"""

from __future__ import annotations

import numpy as np

from lmms_topoprune.calibration.states import HiddenStates
from lmms_topoprune.criteria.cosine import unit
from lmms_topoprune.registry import criterion
from lmms_topoprune.selection import PairScores


@criterion(
    "angular",
    summary="angle between states, for one block of layers",
    paper="Gromov et al., The Unreasonable Ineffectiveness of the Deeper Layers, ICLR 2025",
    address="https://arxiv.org/abs/2403.17887",
    selection="block",
)
def score(states: HiddenStates) -> PairScores:
    """1 - d(i, j), where d is the mean over samples of arccos(cos) / pi at the sample's token."""
    points = unit(states.points)
    values = np.stack([1 - _distances(points, i) for i in range(len(points))])
    return PairScores(values, "angular")


def _distances(states: np.ndarray, i: int) -> np.ndarray:
    """(S,): the mean angular distance of state i to every state."""
    cosines = np.einsum("nd,snd->sn", states[i], states)
    distances = np.arccos(np.clip(cosines, -1, 1)).mean(-1) / np.pi
    distances[i] = 0
    return distances
