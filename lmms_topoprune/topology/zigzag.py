"""From point clouds, graphs or complexes to a barcode, and the controls: no zigzag, or no order of layers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmms_topoprune.errors import InputError, OptionError, unknown
from lmms_topoprune.topology.barcode import Barcode
from lmms_topoprune.topology.complexes import Graph, Simplex, cells_of, flag_simplices
from lmms_topoprune.topology.descriptors import betti
from lmms_topoprune.topology.neighbors import Ints, Neighbors
from lmms_topoprune.topology.points import checked, whole

THROUGH = ("intersections", "unions")


def zigzag_barcode(
    states: Any, *, k: int, metric: str = "euclidean", dimensions: Collection[int] = (0, 1)
) -> Barcode:
    """The barcode of the zigzag through intersections, K_0 > K_0 n K_1 < K_1 > ...

    K_l is the flag complex of the kNN graph of state l, symmetrized by union. Point n of one state and
    point n of the next are the same vertex (Gardinazzi et al., ICML 2025, arXiv 2410.11042).

    Args:
        states: (S, N, d) floats, a NumPy array or a torch tensor; row n of every state is the same sample
            or token. On a GPU the distances are computed there.
        k: neighbors, 1 <= k < N.
        metric: "euclidean" or "cosine".
        dimensions: homology dimensions; 0 and 1 are fast, higher ones go through a general reduction.

    Raises:
        InputError: the states are not (S, N, d), or a point is not finite (or zero, for "cosine").
        OptionError: k, metric or dimensions are not allowed.
    """
    return zigzag_barcodes(states, ks=(k,), metric=metric, dimensions=dimensions)[0]


def union_zigzag_barcode(
    states: Any, *, k: int, metric: str = "euclidean", dimensions: Collection[int] = (0, 1)
) -> Barcode:
    """The barcode of the zigzag through unions, K(X_0) < K(X_0 u X_1) > K(X_1) < K(X_1 u X_2) > ...

    All states lie in one space, and point n of one state and point n of the next are two points. K(X_l) is
    the flag complex of the kNN graph of state l; K(X_l u X_(l+1)) that of three graphs together: those of
    X_l and X_(l+1), and the kNN graph of all 2N points ("topological bootstrapping" of Carlsson and de Silva,
    FoCM 2010, arXiv 0812.0197). Clouds that moved apart share no edges, and no loop is carried over.

    Args:
        states: (S, N, d), as in zigzag_barcode.
        k: number of neighbors.
        metric: as in zigzag_barcode.
        dimensions: as in zigzag_barcode.

    Returns:
        Bars over the indices 0..2(S-1); even ones are states, odd ones unions.

    Raises:
        InputError, OptionError: as zigzag_barcode.
    """
    return zigzag_barcodes(states, ks=(k,), through="unions", metric=metric, dimensions=dimensions)[0]


def zigzag_barcodes(
    states: Any,
    *,
    ks: Iterable[int],
    through: str = "intersections",
    metric: str = "euclidean",
    dimensions: Collection[int] = (0, 1),
) -> list[Barcode]:
    """One barcode for each k, as zigzag_barcode and union_zigzag_barcode give it, from one set of distances.

    Args:
        ks: one or more numbers of neighbors.
        through: "intersections" or "unions".
        states, metric, dimensions: as in zigzag_barcode.

    Raises:
        InputError, OptionError: as zigzag_barcode.
    """
    ks = check_ks(ks)
    check_through(through)
    check_dimensions(dimensions)
    neighbors = while_compiling(partial(neighbors_for, states, ks, through, metric))
    return [neighbors_barcode(neighbors, k=k, through=through, dimensions=dimensions) for k in ks]


def while_compiling(search: Callable[[], Neighbors]) -> Neighbors:
    """What a search finds; meanwhile what makes barcodes of it is compiled, where it is not yet."""
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(search)
        import lmms_topoprune.topology.flag_zigzag  # noqa: F401  compiled on import

        return found.result()


def neighbors_for(states: Any, ks: Collection[int], through: str, metric: str) -> Neighbors:
    """The neighbors that the zigzag needs for every k of ks."""
    for k in dict.fromkeys(ks):  # a k that is too small or too large is named, whichever it is
        states = checked(states, k, metric)
    return Neighbors.of(states, max(ks), metric, "adjacent" if through == "unions" else "none")


def neighbors_barcode(
    neighbors: Neighbors, *, k: int, through: str = "intersections", dimensions: Collection[int] = (0, 1)
) -> Barcode:
    """The barcode for one k of neighbors that were found already, for this k or a larger one.

    Raises:
        OptionError: k is more than the neighbors that were found, or `through` needs neighbors in unions
            that were not searched, or dimensions are not allowed.
    """
    check_through(through)
    check_dimensions(dimensions)
    graphs = [neighbors.graph(state, k) for state in range(neighbors.states)]
    if through == "intersections":
        return _intersections(graphs, dimensions)
    if max(dimensions) > 1:
        return _unions_in_general(neighbors, k, dimensions)
    from lmms_topoprune.topology.flag_zigzag import union_bars  # compiled on import

    bars = union_bars(graphs, lambda state: neighbors.union_graph(state, state + 1, k), set(dimensions))
    return Barcode.of(bars, len(graphs))


def graphs_barcode(graphs: NDArray[np.bool_], *, dimensions: Collection[int] = (0, 1)) -> Barcode:
    """The barcode of the zigzag through intersections for graphs (S, N, N): boolean, symmetric, no loops.

    Raises:
        InputError: the graphs are something else.
        OptionError: the dimensions are no whole numbers from 0.
    """
    check_dimensions(dimensions)
    graphs = np.asarray(graphs)
    if graphs.ndim != 3 or graphs.shape[1] != graphs.shape[2] or graphs.dtype != bool or 0 in graphs.shape:
        raise InputError(f"graphs has shape {graphs.shape} of {graphs.dtype}; allowed: (S, N, N) of bool")
    for s, graph in enumerate(graphs):
        if (graph != graph.T).any() or graph.diagonal().any():
            raise InputError(
                f"graph {s} is not symmetric or has loops; allowed: undirected graphs without loops"
            )
    return _intersections([Graph.of_matrix(graph) for graph in graphs], dimensions)


def _intersections(graphs: Sequence[Graph], dimensions: Collection[int]) -> Barcode:
    if max(dimensions) > 1:
        top = max(dimensions) + 1
        return complexes_barcode([flag_simplices(graph, top) for graph in graphs], dimensions=dimensions)
    from lmms_topoprune.topology.flag_zigzag import intersection_bars  # compiled on import

    return Barcode.of(intersection_bars(graphs, set(dimensions)), len(graphs))


def union_complexes(neighbors: Neighbors, k: int, dimension: int) -> list[list[Simplex]]:
    """K(X_0), K(X_0 u X_1), K(X_1), ... up to a dimension: state l on the vertices N * (l mod 2) + 0..N-1."""
    n, line = neighbors.near.shape[1], []
    for state in range(neighbors.states):
        first = n * (state % 2)
        line.append(
            [tuple(v + first for v in s) for s in flag_simplices(neighbors.graph(state, k), dimension)]
        )
        if state + 1 < neighbors.states:
            union = flag_simplices(neighbors.union_graph(state, state + 1, k), dimension)
            line.append([tuple((v + first) % (2 * n) for v in s) for s in union])
    return line


def _unions_in_general(neighbors: Neighbors, k: int, dimensions: Collection[int]) -> Barcode:
    """As a zigzag through intersections, each of which is the smaller one of its neighbors: a state."""
    line = union_complexes(neighbors, k, max(dimensions) + 1)
    bars = complexes_barcode(line, dimensions=dimensions).to_array()
    bars[:, 1:] = (bars[:, 1:] + 1) // 2  # an intersection has the index of its state
    return Barcode.of(bars, neighbors.states)


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
    check_dimensions(dimensions)
    cells = cells_of(complexes, max(dimensions) + 1)
    from lmms_topoprune.topology.fastzigzag import reduce_cells  # compiled on first use

    bars = reduce_cells(cells)
    return Barcode.of(bars[np.isin(bars[:, 0], list(dimensions))], len(complexes))


def check_through(through: str) -> None:
    """Refuse an unknown kind of zigzag.

    Raises:
        OptionError: names the closest one.
    """
    if through not in THROUGH:
        raise unknown("through", through, THROUGH)


def check_ks(ks: Iterable[int]) -> tuple[int, ...]:
    """The numbers of neighbors as a tuple.

    Raises:
        OptionError: there is none.
    """
    if not isinstance(ks, Iterable) or isinstance(ks, str) or not (ks := tuple(ks)):
        raise OptionError(f"ks is {ks!r}; allowed: one or more whole numbers from 1, such as (5, 10)")
    return ks


def check_dimensions(dimensions: Collection[int], most: int | None = None) -> None:
    """Refuse anything but whole numbers from 0, up to `most` if that is given.

    Raises:
        OptionError: says which are allowed.
    """
    if (
        not isinstance(dimensions, Collection)
        or not dimensions
        or not all(map(whole, dimensions))
        or min(dimensions) < 0
        or (most is not None and max(dimensions) > most)
    ):
        allowed = "from 0" if most is None else f"from 0 to {most}"
        raise OptionError(f"dimensions is {dimensions!r}; allowed: one or more whole numbers {allowed}")


def static_betti(
    states: Any, *, k: int, metric: str = "euclidean", dimensions: Sequence[int] = (0, 1)
) -> Ints:
    """(S, dimensions): the Betti numbers of each state's flag complex by itself.

    `states` are (S, N, d), or their Neighbors if those were found already (metric then plays no part).
    """
    check_dimensions(dimensions)
    neighbors = states if isinstance(states, Neighbors) else Neighbors.of(states, k, metric)
    if max(dimensions) > 1:
        single = [Neighbors(near[None], {}) for near in neighbors.near]
        found = [neighbors_barcode(state, k=k, dimensions=dimensions) for state in single]
        return np.array([[betti(barcode, p)[0] for p in dimensions] for barcode in found], dtype=np.int64)
    from lmms_topoprune.topology.flag_zigzag import homologies  # compiled on import

    complexes = homologies(lambda state: neighbors.graph(state, k), neighbors.states)
    return np.array([[found.betti(p) for p in dimensions] for found in complexes], dtype=np.int64)


def shuffled_barcode(
    states: Any, *, k: int, seed: int, metric: str = "euclidean", dimensions: Collection[int] = (0, 1)
) -> tuple[Barcode, Ints]:
    """The barcode of the states in a random order, and that order: place i holds state order[i]."""
    states = checked(states, k, metric)
    order = np.random.default_rng(seed).permutation(len(states))
    return zigzag_barcode(states[order], k=k, metric=metric, dimensions=dimensions), order
