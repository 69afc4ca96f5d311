"""From point clouds or complexes to a barcode."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmms_topoprune.errors import InputError, OptionError, unknown
from lmms_topoprune.topology.barcode import Barcode
from lmms_topoprune.topology.complexes import cells_of, flag_simplices
from lmms_topoprune.topology.neighbors import graphs as neighbor_graphs

METRICS = ("euclidean", "cosine")


def zigzag_barcode(
    states: Any, *, k: int, metric: str = "euclidean", dimensions: Collection[int] = (0, 1)
) -> Barcode:
    """The zigzag barcode of the flag complexes of kNN graphs.

    Args:
        states: (S, N, d) floats, a NumPy array or a torch tensor; row n of every state is sample n. On a
            GPU the distances are computed there.
        k: neighbors, 1 <= k < N.
        metric: "euclidean" or "cosine".
        dimensions: homology dimensions; 0 and 1 are fast, higher ones go through a general reduction.

    Raises:
        InputError: the states are not (S, N, d), or a sample is not finite (or zero, for "cosine").
        OptionError: k, metric or dimensions are not allowed.
    """
    states = checked(states, k, metric)
    _check_dimensions(dimensions)
    with ThreadPoolExecutor(1) as pool:
        graphs = pool.submit(neighbor_graphs, states, k, metric)
        import lmms_topoprune.topology.flag_zigzag  # noqa: F401  compiles while the distances are computed

        return graphs_barcode(graphs.result(), dimensions=dimensions)


def graphs_barcode(graphs: NDArray[np.bool_], *, dimensions: Collection[int] = (0, 1)) -> Barcode:
    """The zigzag barcode of the flag complexes of graphs (S, N, N): boolean, symmetric, no loops."""
    _check_dimensions(dimensions)
    graphs = np.asarray(graphs)
    if graphs.ndim != 3 or graphs.shape[1] != graphs.shape[2] or graphs.dtype != bool or 0 in graphs.shape:
        raise InputError(f"graphs has shape {graphs.shape} of {graphs.dtype}; allowed: (S, N, N) of bool")
    for s, graph in enumerate(graphs):
        if (graph != graph.T).any() or graph.diagonal().any():
            raise InputError(
                f"graph {s} is not symmetric or has loops; allowed: undirected graphs without loops"
            )
    if max(dimensions) > 1:
        top = max(dimensions) + 1
        return complexes_barcode([flag_simplices(graph, top) for graph in graphs], dimensions=dimensions)
    from lmms_topoprune.topology.flag_zigzag import flag_bars  # compiled on import

    return Barcode.of(_only(flag_bars(graphs, frozenset(dimensions)), dimensions), len(graphs))


def complexes_barcode(
    complexes: Sequence[Iterable[Sequence[int]] | Any], *, dimensions: Collection[int] = (0, 1)
) -> Barcode:
    """The barcode of K_0 > K_0 n K_1 < K_1 > ... for any simplicial complexes.

    A simplex may come and go any number of times. Where one complex holds the next the intersection is
    the smaller one, so every zigzag of inclusions can be written in this way.

    Args:
        complexes: each a gudhi.SimplexTree, or simplices as lists of vertices; faces are added.
        dimensions: homology dimensions.
    """
    _check_dimensions(dimensions)
    cells = cells_of(complexes, max(dimensions) + 1)
    from lmms_topoprune.topology.fastzigzag import reduce_cells  # compiled on first use

    return Barcode.of(_only(reduce_cells(cells), dimensions), len(complexes))


def checked(states: Any, k: int, metric: str) -> Any:
    """The states as they are used, or one sentence on what is wrong with them."""
    if metric not in METRICS:
        raise unknown("metric", metric, METRICS)
    if isinstance(states, list | tuple) and states and all(hasattr(s, "detach") for s in states):
        import torch

        if len({(s.shape, s.dtype, s.device) for s in states}) > 1:
            raise InputError(
                "states differ in shape, type or device; allowed: (states, samples, width) of one type"
            )
        states = torch.stack(list(states))
    if hasattr(states, "detach"):
        if states.is_complex() or str(states.dtype) == "torch.bool":
            raise InputError(f"states hold {states.dtype}; allowed: real numbers")
    else:
        try:
            states = np.asarray(states)
        except ValueError:
            raise InputError("states have different shapes; allowed: (states, samples, width)") from None
        if states.dtype.kind not in "fiu":
            raise InputError(f"states hold {states.dtype}; allowed: real numbers")
    if states.ndim != 3 or 0 in states.shape:
        raise InputError(f"states has shape {tuple(states.shape)}; allowed: (states, samples, width), none 0")
    if not whole(k) or not 1 <= k < states.shape[1]:
        raise OptionError(
            f"k is {k} for {states.shape[1]} samples; allowed: whole numbers from 1 to samples - 1 "
            f"({states.shape[1] - 1})"
        )
    return states


def _check_dimensions(dimensions: Collection[int]) -> None:
    if (
        not isinstance(dimensions, Collection)
        or not dimensions
        or not all(map(whole, dimensions))
        or min(dimensions) < 0
    ):
        raise OptionError(f"dimensions is {dimensions!r}; allowed: one or more whole numbers from 0")


def whole(number: object) -> bool:
    """Whether it is a whole number, which True and 1.0 are not."""
    return isinstance(number, int | np.integer) and not isinstance(number, bool)


def _only(bars: NDArray[np.int64], dimensions: Collection[int]) -> NDArray[np.int64]:
    return bars[np.isin(bars[:, 0], list(dimensions))]
