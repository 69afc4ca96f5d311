"""Zigzag barcodes are exact: against ranks, the general reduction, and FastZigZag's authors' code."""

from __future__ import annotations

from itertools import combinations, pairwise

import brute_force
import gudhi
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmms_topoprune.topology import Barcode, betti, complexes_barcode, graphs_barcode, zigzag_barcode
from lmms_topoprune.topology.complexes import Graph, flag_simplices
from lmms_topoprune.topology.neighbors import Neighbors


def graphs(points, k, metric: str = "euclidean") -> list[Graph]:
    neighbors = Neighbors.of(points, k, metric)
    return [neighbors.graph(state, k) for state in range(len(points))]


quick = settings(deadline=None, max_examples=120)


@st.composite
def zigzags(draw):
    """Any complexes on a few vertices: simplices come and go repeatedly."""
    n = draw(st.integers(2, 5))
    simplices = [s for size in (1, 2, 3) for s in combinations(range(n), size)]
    return draw(st.lists(st.lists(st.sampled_from(simplices), max_size=9), min_size=1, max_size=4))


@st.composite
def clouds(draw, samples: int = 16, states: int = 5):
    """Point clouds that drift, with ties, duplicates, identical and unrelated states; k up to N - 1."""
    count, n, width = draw(st.integers(1, states)), draw(st.integers(2, samples)), draw(st.integers(1, 4))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    points = generator.normal(size=(count, n, width))
    kind = draw(st.sampled_from(["drift", "identical", "unrelated", "grid", "duplicates", "clusters"]))
    if kind == "drift":
        points = np.cumsum(points * draw(st.sampled_from([0.1, 1.0])), axis=0)
    elif kind == "identical":
        points[:] = points[0]
    elif kind == "grid":
        points = np.round(np.cumsum(points, axis=0))
    elif kind == "duplicates":
        points = points[:, generator.integers(0, n, n)]
    elif kind == "clusters":
        points += 100 * generator.integers(0, 3, (n, 1))
    return points, draw(st.integers(1, min(n - 1, 6) if draw(st.booleans()) else n - 1))


def brute_barcode(complexes) -> Barcode:
    return Barcode.of([bar for p in (0, 1) for bar in brute_force.bars(complexes, p)], len(complexes))


@quick
@given(zigzags())
def test_any_zigzag_equals_ranks(complexes) -> None:
    assert complexes_barcode(complexes) == brute_barcode(complexes)


@quick
@given(clouds(samples=6, states=4))
def test_point_clouds_equal_ranks(cloud) -> None:
    points, k = cloud
    complexes = [flag_simplices(graph, 2) for graph in graphs(points, k)]
    assert zigzag_barcode(points, k=k) == brute_barcode(complexes)


@settings(deadline=None, max_examples=250)
@given(clouds())
def test_point_clouds_equal_the_general_reduction(cloud) -> None:
    points, k = cloud
    complexes = [flag_simplices(graph, 2) for graph in graphs(points, k)]
    assert zigzag_barcode(points, k=k) == complexes_barcode(complexes)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.floats(0.02, 0.6), st.integers(2, 30))
def test_any_graphs_equal_the_general_reduction(seed: int, density: float, n: int) -> None:
    upper = np.triu(np.random.default_rng(seed).random((4, n, n)) < density, 1)
    found = upper | upper.transpose(0, 2, 1)
    assert graphs_barcode(found) == complexes_barcode(
        [flag_simplices(Graph.of_matrix(graph), 2) for graph in found]
    )


@quick
@given(clouds())
def test_neighbors_equal_sorted_exact_distances(cloud) -> None:
    points, k = cloud
    squares = ((points[:, :, None] - points[:, None]) ** 2).sum(-1)
    for s, square in enumerate(squares):
        np.fill_diagonal(square, np.inf)
        expected = np.zeros(square.shape, dtype=bool)
        np.put_along_axis(expected, np.argsort(square, axis=1, kind="stable")[:, :k], True, axis=1)
        assert np.array_equal(graphs(points, k)[s].matrix(), expected | expected.T)


@quick
@given(clouds())
def test_betti_numbers_equal_gudhi(cloud) -> None:
    points, k = cloud
    barcode = zigzag_barcode(points, k=k)
    for s, graph in enumerate(graphs(points, k)):
        tree = gudhi.SimplexTree()
        for simplex in flag_simplices(graph, 2):
            tree.insert(simplex)
        tree.compute_persistence(homology_coeff_field=2, persistence_dim_max=True)
        assert [betti(barcode, p)[s] for p in (0, 1)] == tree.betti_numbers()[:2] + [0] * (
            2 - len(tree.betti_numbers())
        )


def events(complexes) -> tuple[list, list[int]]:
    """Insertions and deletions in FastZigZag's form, and the index each one leads to."""
    out, index, held = [], [], set()
    states = [brute_force.closed(c) for c in complexes]
    line = [states[0]]
    for before, after in pairwise(states):
        line += [before & after, after]
    for i, wanted in enumerate(line):
        steps = [("d", s) for s in sorted(held - wanted, key=len, reverse=True)]
        steps += [("i", s) for s in sorted(wanted - held, key=len)]
        out += [(op, list(s)) for op, s in steps]
        index += [i] * len(steps)
        held = wanted
    return out, [*index, len(line)]


@settings(deadline=None, max_examples=100)
@given(clouds())
def test_point_clouds_equal_fastzigzag(cloud) -> None:
    pyfzz = pytest.importorskip("pyfzz", reason="the authors' FastZigZag is not installed")
    points, k = cloud
    complexes = [flag_simplices(graph, 2) for graph in graphs(points, k)]
    steps, index = events(complexes)
    found = [(p, index[b - 1], index[d]) for b, d, p in pyfzz.pyfzz().compute_zigzag(steps) if p < 2]
    expected = Barcode.of([bar for bar in found if bar[1] < bar[2]], len(points))
    assert zigzag_barcode(points, k=k) == expected
