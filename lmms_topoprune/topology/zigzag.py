"""From point clouds or complexes to a barcode."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from lmms_topoprune.errors import InputError, OptionError, unknown
from lmms_topoprune.topology import neighbors
from lmms_topoprune.topology.barcode import Barcode
from lmms_topoprune.topology.complexes import cells_of
from lmms_topoprune.topology.fastzigzag import reduce_cells

METRICS = ("euclidean", "cosine")


def zigzag_barcode(
    states: Any, *, k: int, metric: str = "euclidean", dimensions: Sequence[int] = (0, 1)
) -> Barcode:
    """The zigzag barcode of the kNN flag complexes of point clouds.

    Args:
        states: (S, N, d) floats; state s has N points.
        k: neighbors, 1 <= k < N.
        metric: "euclidean" or "cosine".
        dimensions: homology dimensions.
    """
    states = np.asarray(states)
    check_states(states, k, metric)
    graphs = neighbors.graphs(states, k, metric)
    complexes = [_flag(graph, max(dimensions) + 1) for graph in graphs]
    return complexes_barcode(complexes, dimensions=dimensions)


def complexes_barcode(
    complexes: Sequence[Iterable[Sequence[int]] | Any], *, dimensions: Sequence[int] = (0, 1)
) -> Barcode:
    """The barcode of K_0 > K_0 n K_1 < K_1 > ... for any complexes (gudhi.SimplexTree or simplices)."""
    bars = reduce_cells(cells_of(complexes, max(dimensions) + 1))
    return Barcode.of(bars[np.isin(bars[:, 0], list(dimensions))], len(complexes))


def check_states(states: Any, k: int, metric: str) -> None:
    """Raise one sentence for what cannot be used."""
    if metric not in METRICS:
        raise unknown("metric", metric, METRICS)
    if states.ndim != 3:
        raise InputError(f"states has shape {tuple(states.shape)}; allowed: (states, samples, width)")
    if len(states) < 1:
        raise InputError(f"states holds {len(states)} states; allowed: at least 1")
    if not np.isfinite(states).all():
        s, n = np.argwhere(~np.isfinite(states))[0][:2]
        raise InputError(f"sample {n} of state {s} holds NaN or infinite numbers; allowed: finite numbers")
    if not 1 <= k < states.shape[1]:
        raise OptionError(f"k is {k} for {states.shape[1]} samples; allowed: 1 <= k < samples")


def _flag(graph: Any, dimension: int) -> list[tuple[int, ...]]:
    near = [set(np.flatnonzero(row)) for row in graph]
    out: list[tuple[int, ...]] = [(v,) for v in range(len(graph))]
    level = list(out)
    for _ in range(dimension):
        level = [
            (*s, int(w)) for s in level for w in sorted(set.intersection(*(near[v] for v in s))) if w > s[-1]
        ]
        out += level
    return out
