"""Cosine of a layer's input and output at the sample's token.

The score of LLM-Streamline (Chen et al., arXiv 2403.19135) for single layers; a layer that turns
nothing is dropped first.
"""

from __future__ import annotations

import numpy as np

from lmms_topoprune.calibration.states import HiddenStates
from lmms_topoprune.registry import criterion
from lmms_topoprune.selection import LayerScores


@criterion(
    "cosine",
    summary="cosine of input and output at one token",
    paper="Chen et al., Streamlining Redundant Layers to Compress Large Language Models, ICLR 2025",
    address="https://arxiv.org/abs/2403.19135",
)
def score(states: HiddenStates) -> LayerScores:
    """The mean over samples of cos(state l, state l + 1)."""
    points = unit(states.points)
    return LayerScores((points[:-1] * points[1:]).sum(-1).mean(-1), "cosine")


def unit(states: np.ndarray) -> np.ndarray:
    """States (S, N, d) of length one; a zero vector stays zero."""
    norms = np.linalg.norm(states, axis=-1, keepdims=True)
    return states / np.maximum(norms, np.finfo(np.float32).tiny)
