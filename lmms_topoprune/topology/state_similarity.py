"""J(i, j) for all pairs of states: how much of the shape at i is still the shape at j."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmms_topoprune.errors import InputError
from lmms_topoprune.topology.barcode import Barcode
from lmms_topoprune.topology.descriptors import (
    Floats,
    Ints,
    alive,
    inter_layer_persistence,
    jaccard_of_counts,
)
from lmms_topoprune.topology.neighbors import Neighbors
from lmms_topoprune.topology.points import checked
from lmms_topoprune.topology.zigzag import check_dimensions, check_ks, check_through, zigzag_barcodes

PER_DOUBLING = (0.7, 1.0, 1.5)


def scales(points: int) -> tuple[int, ...]:
    """Numbers of neighbors that suit a number of points: 7, 10 and 15 for 1,024, one more for twice as many.

    A kNN graph stays connected, and no more than that, if k grows as the logarithm of the number of points
    (Balister et al., "Connectivity of random k-nearest-neighbour graphs", 2005), so these see the same
    structure at every size.
    """
    doublings = math.log2(max(points, 4))
    return tuple(sorted({max(1, min(points - 1, round(factor * doublings))) for factor in PER_DOUBLING}))


def similarity(
    states: Any,
    *,
    ks: Iterable[int] | None = None,
    through: str = "intersections",
    direct: bool = False,
    metric: str = "euclidean",
    dimensions: Collection[int] = (1,),
) -> Floats:
    """J (S, S) in 0..1, the mean over numbers of neighbors and homology dimensions.

    J_p(i, j) = A_p(i, j) / (beta_p(i) + beta_p(j) - A_p(i, j)), where beta_p(i) counts the p-bars alive at
    state i and A_p(i, j) those alive at both.

    Args:
        states: (S, N, d), as in zigzag_barcode.
        ks: numbers of neighbors; None: scales(N).
        through: "intersections" or "unions".
        direct: compare i and j without the states in between, by a zigzag of these two alone.
        metric: "euclidean" or "cosine".
        dimensions: homology dimensions, 0 and 1.

    Raises:
        InputError: the states are not (S, N, d), or a point is not finite (or zero, for "cosine").
        OptionError: ks, through, metric or dimensions are not allowed.
    """
    check_through(through)
    states = checked(states, 1, metric)
    ks = scales(states.shape[1]) if ks is None else check_ks(ks)
    if not direct:
        barcodes = zigzag_barcodes(states, ks=ks, through=through, metric=metric, dimensions=dimensions)
        return combined_jaccard(barcodes, dimensions)
    for k in ks:
        states = checked(states, k, metric)
    neighbors = Neighbors.of(states, max(ks), metric, "all" if through == "unions" else "none")
    return mean_jaccard(
        [a for k in ks for a in alive_directly(neighbors, k=k, through=through, dimensions=dimensions)]
    )


def alive_directly(
    neighbors: Neighbors, *, k: int, through: str = "intersections", dimensions: Collection[int] = (1,)
) -> Ints:
    """A (dimensions, S, S): bars over the whole zigzag of states i and j alone; Betti numbers if i = j.

    Raises:
        OptionError: k is more than the neighbors that were found, or `through` needs unions that were not
            searched, or dimensions hold others than 0 and 1.
    """
    from lmms_topoprune.topology.flag_zigzag import alive_in_pairs  # compiled on import

    check_through(through)
    check_dimensions(dimensions, most=1)
    graphs = [neighbors.graph(state, k) for state in range(neighbors.states)]
    if through == "intersections":
        return alive_in_pairs(graphs, lambda i, j: graphs[i] & graphs[j], 0, tuple(dimensions))
    return alive_in_pairs(
        graphs, lambda i, j: neighbors.union_graph(i, j, k), graphs[0].vertices, tuple(dimensions)
    )


def combined_jaccard(barcodes: Iterable[Barcode], dimensions: Collection[int] = (0, 1)) -> Floats:
    """(S, S): the mean of J_p(i, j) over scales and dimensions, as mean_jaccard."""
    return mean_jaccard([alive(b, p) for b in barcodes for p in dimensions])


def mean_jaccard(shared: Sequence[Ints]) -> Floats:
    """(S, S): the mean of the Jaccards of several A (S, S).

    Each has one vote, whatever the number of its bars; one without any feature at i or j has nothing to
    say and no vote. Where nobody votes the value is 1.
    """
    _comparable(shared)
    total, votes = np.zeros(shared[0].shape), np.zeros(shared[0].shape)
    for s in shared:
        some = s.diagonal() > 0
        voting = some[:, None] | some[None, :]
        total += np.where(voting, jaccard_of_counts(s), 0)
        votes += voting
    return np.divide(total, votes, out=np.ones_like(total), where=votes > 0)


def combined_persistence(
    barcodes: Iterable[Barcode], dimensions: Collection[int] = (0, 1), alpha: float = 0.0
) -> Floats:
    """(S,): the mean of Zbar_p over scales and dimensions."""
    values = [inter_layer_persistence(b, p, alpha) for b in barcodes for p in dimensions]
    _comparable(values)
    return np.mean(values, axis=0)


def _comparable(values: Sequence[NDArray[Any]]) -> None:
    if not values or len({v.shape for v in values}) > 1:
        raise InputError(
            "barcodes have different numbers of states or there is none; allowed: one number of states"
        )
