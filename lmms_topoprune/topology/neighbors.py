"""k-nearest-neighbor graphs of point clouds, exact and independent of the number of threads."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]


def graphs(states: NDArray[np.floating], k: int, metric: str) -> Bools:
    """(S, N, N): adjacency of the kNN graph of each state, symmetrized by union."""
    states_, n = len(states), states.shape[1]
    adjacency = np.zeros((states_, n, n), dtype=bool)
    for s, points in enumerate(states):
        points = points.astype(np.float64)
        if metric == "cosine":
            points = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), np.finfo(float).tiny)
        points = points - points.mean(0)
        squares = (points**2).sum(1)
        distances = squares[:, None] + squares[None, :] - 2 * points @ points.T
        np.fill_diagonal(distances, np.inf)
        nearest = np.argsort(distances, axis=1, kind="stable")[:, :k]
        adjacency[s, np.arange(n)[:, None], nearest] = True
    return adjacency | adjacency.transpose(0, 2, 1)
