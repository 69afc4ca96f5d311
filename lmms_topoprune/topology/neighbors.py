"""k-nearest-neighbor graphs of point clouds, exact and independent of the number of threads.

A float32 Gram matrix (BLAS, or the GPU that holds the states) gives every distance up to a worst-case
rounding error. Where that leaves a doubt the distance is computed anew in float64 and in a fixed order;
equal distances are ordered by index. How BLAS adds up therefore has no influence on the graph.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from lmms_topoprune.topology.clouds import exact_points, gram_matrix, scales, to_numpy

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Distances:
    """What is known about the distances within one point cloud, or between N samples out of it.

    Attributes:
        points: (all, d) as given; scale: (all,) factor for each of them.
        gram: (N, N) float32 inner products; slack: relative error bound of distances from them.
        samples: (N,) which points these are.
    """

    points: NDArray[np.floating]
    scale: NDArray[np.float64]
    gram: NDArray[np.float32]
    slack: float
    samples: NDArray[np.int64]

    @classmethod
    def of(cls, points: Any, state: int, metric: str, space: NDArray[np.float32] | None = None) -> Distances:
        """`space` (N, d) is scratch memory; fresh pages for each state would cost as much as BLAS."""
        device = None if isinstance(points, np.ndarray) else points.device
        points = to_numpy(points)
        space = np.empty(points.shape, dtype=np.float32) if space is None else space
        scale = scales(points, state, metric)
        return cls(points, scale, *gram_matrix(points, scale, device, space), np.arange(len(points)))

    def subset(self, samples: NDArray[np.int64]) -> Distances:
        """The same for some of the samples; nothing is computed anew."""
        gram = np.ascontiguousarray(self.gram[np.ix_(samples, samples)])
        return replace(self, gram=gram, samples=self.samples[samples])

    def graph(self, k: int) -> Bools:
        """(N, N): the kNN graph, symmetrized by union."""
        from lmms_topoprune.topology.nearest import surely_nearest  # compiled on import

        verdict = np.empty(self.gram.shape, dtype=np.int8)
        surely_nearest(self.gram, self.slack, k, np.empty((2, k)), verdict)
        graph, doubtful = verdict == 1, verdict == 2
        missing = k - graph.sum(1)
        settled = doubtful.sum(1) == missing
        graph[settled] |= doubtful[settled]
        for i in np.flatnonzero(~settled).tolist():
            few = np.flatnonzero(doubtful[i])
            graph[i, few[np.argsort(self._squares(i, few), kind="stable")[: missing[i]]]] = True
        return graph | graph.T

    def _squares(self, i: int, others: NDArray[np.int64]) -> NDArray[np.float64]:
        here, there = self.samples[i], self.samples[others]
        # Powers of two round nothing: / 4 keeps differences in range, ldexp their squares.
        difference = exact_points(self.points[there], self.scale[there] / 4)
        difference -= exact_points(self.points[here], self.scale[here] / 4)
        difference = np.ldexp(difference, -int(np.frexp(np.abs(difference).max())[1]))
        return (difference * difference).sum(1)


def graphs(states: Any, k: int, metric: str = "euclidean") -> Bools:
    """(S, N, N): the kNN graph of each state."""
    return multiscale_graphs(states, (k,), metric)[0]


def multiscale_graphs(states: Any, ks: Sequence[int], metric: str = "euclidean") -> Bools:
    """(K, S, N, N): the same for several k from one set of distances.

    Args:
        states: (S, N, d), a NumPy array or a torch tensor on any device.
        ks: numbers of neighbors, 1 <= k < N.
        metric: "euclidean" or "cosine".

    Raises:
        InputError: a sample is not finite, or is zero where the metric is "cosine".
    """
    count, n = len(states), states.shape[1]
    adjacency = np.empty((len(ks), count, n, n), dtype=bool)
    workers = min(4, os.cpu_count() or 1, count)

    def fill(first: int) -> None:
        space = np.empty(states.shape[1:], dtype=np.float32)
        for s in range(first, count, workers):
            distances = Distances.of(states[s], s, metric, space)
            for i, k in enumerate(ks):
                adjacency[i, s] = distances.graph(k)

    # One BLAS thread a worker: two pools of threads would wait for each other.
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(workers) as pool:
        list(pool.map(fill, range(workers)))
    return adjacency
