"""Several neighbor numbers and both homology dimensions in one score."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmms_topoprune.errors import InputError, OptionError
from lmms_topoprune.topology.barcode import Barcode
from lmms_topoprune.topology.descriptors import Floats, alive, inter_layer_persistence, jaccard_of_counts
from lmms_topoprune.topology.neighbors import multiscale_graphs
from lmms_topoprune.topology.zigzag import checked, graphs_barcode


def zigzag_barcodes(
    states: Any, *, ks: Iterable[int], metric: str = "euclidean", dimensions: Collection[int] = (0, 1)
) -> list[Barcode]:
    """One barcode a k, as zigzag_barcode gives it, from one set of distances."""
    if not isinstance(ks, Iterable) or isinstance(ks, str) or not (ks := tuple(ks)):
        raise OptionError(f"ks is {ks!r}; allowed: one or more whole numbers from 1, such as (5, 10)")
    for k in ks:
        states = checked(states, k, metric)
    return [graphs_barcode(g, dimensions=dimensions) for g in multiscale_graphs(states, ks, metric)]


def combined_jaccard(barcodes: Iterable[Barcode], dimensions: Collection[int] = (0, 1)) -> Floats:
    """(S, S): the mean of J_p(i, j) over scales and dimensions.

    Each scale and dimension has one vote, whatever the number of its bars; one without any feature at i
    or j has nothing to say and no vote. Where nobody votes the value is 1.
    """
    shared = [alive(b, p) for b in barcodes for p in dimensions]
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
