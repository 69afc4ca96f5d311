"""Centered kernel alignment: how alike two states' matrices of inner products are.

Kornblith et al., "Similarity of Neural Network Representations Revisited", ICML 2019 (arXiv 1905.00414),
linear CKA, equation 4.
"""

from __future__ import annotations

import numpy as np

from lmms_topoprune.calibration.states import HiddenStates
from lmms_topoprune.criteria.unions import TOKENS
from lmms_topoprune.registry import criterion
from lmms_topoprune.selection import PairScores


@criterion(
    "cka",
    summary="centered kernel alignment of token clouds",
    paper="Kornblith et al., Similarity of Neural Network Representations Revisited, ICML 2019",
    address="https://arxiv.org/abs/1905.00414",
    selection="rank",
    defaults={"points": TOKENS["points"]},
)
def score(states: HiddenStates) -> PairScores:
    """|X_i' X_j|^2 / (|X_i' X_i| |X_j' X_j|) of the centered points X (N, d)."""
    grams = [_unit_gram(points) for points in states.points]
    values = np.array([[float((one * other).sum()) for other in grams] for one in grams])
    np.fill_diagonal(values, 1.0)
    return PairScores(values.clip(0, 1), "cka")


def _unit_gram(points: np.ndarray) -> np.ndarray:
    """(N, N): the centered points' inner products, of length one."""
    centered = points.astype(np.float64) - points.mean(0, dtype=np.float64)
    gram = centered @ centered.T
    return gram / max(float(np.linalg.norm(gram)), np.finfo(float).tiny)
