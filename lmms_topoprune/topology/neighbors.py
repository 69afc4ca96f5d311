"""k-nearest-neighbor graphs of point clouds, exact and independent of the number of threads.

A float32 Gram matrix (BLAS, or the GPU that holds the states) gives every distance up to a worst-case
rounding error. Where that leaves a doubt the distance is computed anew in float64 and in a fixed order;
equal distances are ordered by index. How BLAS adds up therefore has no influence on the graph.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmms_topoprune.errors import InputError

Bools = NDArray[np.bool_]
Floats = NDArray[np.floating]
UNIT = 2.0**-24  # rounding error of float32


def graphs(states: Any, k: int, metric: str = "euclidean") -> Bools:
    """(S, N, N): adjacency of the kNN graph of each state, symmetrized by union.

    Args:
        states: (S, N, d), a NumPy array or a torch tensor on any device.
        k: neighbors, 1 <= k < N.
        metric: "euclidean" or "cosine".

    Raises:
        InputError: a sample is not finite, or is zero where the metric is "cosine".
    """
    adjacency = np.empty((len(states), states.shape[1], states.shape[1]), dtype=bool)
    workers = min(2, os.cpu_count() or 1, len(states))

    def fill(first: int) -> None:
        space = np.empty(states.shape[1:], dtype=np.float32)  # fresh pages for each state would cost more than BLAS
        for s in range(first, len(states), workers):
            adjacency[s] = _graph(states[s], s, k, metric, space)

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(fill, range(workers)))
    return adjacency


def _graph(points: Any, state: int, k: int, metric: str, space: NDArray[np.float32]) -> Bools:
    from lmms_topoprune.topology.nearest import surely_nearest  # compiled on import

    on_device = None if isinstance(points, np.ndarray) else points
    points = _to_numpy(points)
    scale = _scale(points, state, metric)
    gram, slack = _gram(points, scale, on_device, space)
    n = len(points)
    verdict = np.empty((n, n), dtype=np.int8)
    surely_nearest(gram, slack, k, np.empty((2, k)), verdict)
    graph, doubtful = verdict == 1, verdict == 2
    missing = k - graph.sum(1)
    settled = doubtful.sum(1) == missing
    graph[settled] |= doubtful[settled]
    for i in np.flatnonzero(~settled):
        few = np.flatnonzero(doubtful[i])
        difference = _exact(points[few], scale[few]) - _exact(points[i], scale[i])
        distances = (difference * difference).sum(1)
        graph[i, few[np.argsort(distances, kind="stable")[: missing[i]]]] = True
    return graph | graph.T


def _exact(points: Floats, scale: Floats) -> NDArray[np.float64]:
    return points.astype(np.float64) * scale[..., None]


def _scale(points: Floats, state: int, metric: str) -> NDArray[np.float64]:
    """(N,): factors that give each sample length one for "cosine", else 1."""
    with np.errstate(invalid="ignore", over="ignore"):
        if not np.isfinite(points.sum(0)).all():
            bad = np.flatnonzero(~np.isfinite(points).all(1))
            if len(bad):
                raise InputError(
                    f"sample {bad[0]} of state {state} holds NaN or infinite numbers; allowed: finite numbers"
                )
    if metric == "euclidean":
        return np.ones(len(points))
    largest = np.abs(points).max(1).astype(np.float64)
    if (largest == 0).any():
        raise InputError(
            f"sample {np.argmin(largest)} of state {state} is zero and has no direction; "
            "allowed with metric 'cosine': non-zero samples"
        )
    scaled = points.astype(np.float64) / largest[:, None]
    return 1 / (largest * np.sqrt((scaled * scaled).sum(1)))


def _gram(
    points: Floats, scale: NDArray[np.float64], on_device: Any, space: NDArray[np.float32]
) -> tuple[NDArray[np.float32], float]:
    """Inner products of the centered samples, and the relative error bound of distances from them.

    Subtracting one vector from all and multiplying all by one number moves no neighbor.
    """
    simple = points.dtype == np.float32 and bool((scale == 1).all())
    if simple:
        with np.errstate(over="ignore", invalid="ignore"):
            np.subtract(points, points.mean(0, dtype=np.float32), out=space)
    if not simple or not _within_range(space):
        exact = _exact(points, scale)
        exact -= exact.mean(0)
        exact /= max(float(np.abs(exact).max()), np.finfo(float).tiny)
        space[:] = exact
    slack = (4 * points.shape[1] + 32) * UNIT
    if on_device is not None and on_device.device.type == "cuda":
        return _cuda_gram(space, on_device.device), slack
    return space @ space.T, slack


def _within_range(centered: NDArray[np.float32]) -> bool:
    """Whether squared lengths neither overflow nor vanish in float32."""
    with np.errstate(over="ignore", invalid="ignore"):
        longest = float(np.einsum("nd,nd->n", centered, centered).max())
    return 1e-20 < longest < 1e30


def _cuda_gram(centered: NDArray[np.float32], device: Any) -> NDArray[np.float32]:
    import torch

    allowed = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False  # the error bound is float32's
    try:
        there = torch.from_numpy(centered).to(device)
        return (there @ there.T).cpu().numpy()
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed


def _to_numpy(points: Any) -> Floats:
    if isinstance(points, np.ndarray):
        return points if points.dtype in (np.float32, np.float64) else points.astype(np.float64)
    points = points.detach()
    return (points if points.element_size() >= 4 else points.float()).cpu().numpy()
