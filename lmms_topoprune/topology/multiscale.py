"""Several neighbor numbers and both homology dimensions in one score."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np

from lmms_topoprune.errors import InputError, OptionError
from lmms_topoprune.topology.barcode import Barcode
from lmms_topoprune.topology.descriptors import Floats, alive, inter_layer_persistence
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
    total, votes = _sums(barcodes, dimensions)
    return np.divide(total, votes, out=np.ones_like(total), where=votes > 0)


def _sums(barcodes: Iterable[Barcode], dimensions: Collection[int]) -> tuple[Floats, Floats]:
    shared = [alive(b, p).astype(float) for b in barcodes for p in dimensions]
    _comparable(shared)
    total, votes = np.zeros_like(shared[0]), np.zeros_like(shared[0])
    for s in shared:
        union = s.diagonal()[:, None] + s.diagonal()[None, :] - s
        total += np.divide(s, union, out=np.zeros_like(s), where=union > 0)
        votes += union > 0
    return total, votes


def combined_persistence(
    barcodes: Iterable[Barcode], dimensions: Collection[int] = (0, 1), alpha: float = 0.0
) -> Floats:
    """(S,): the mean of Zbar_p over scales and dimensions."""
    values = [inter_layer_persistence(b, p, alpha) for b in barcodes for p in dimensions]
    _comparable(values)
    return np.mean(values, axis=0)


def _comparable(values: list[Floats]) -> None:
    if not values or len({v.shape for v in values}) > 1:
        raise InputError(
            "barcodes have different numbers of states or there is none; allowed: one number of states"
        )
