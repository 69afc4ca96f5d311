"""The zigzag through unions: against ranks and the general reduction, on known shapes, and invariances."""

from __future__ import annotations

from itertools import combinations

import brute_force
import numpy as np
import pytest
from hypothesis import given, settings
from test_exact import clouds

from lmms_topoprune import topology as tp
from lmms_topoprune.errors import InputError, OptionError
from lmms_topoprune.topology.neighbors import Neighbors

rng = np.random.default_rng(4)
DRIFT = np.cumsum(rng.normal(size=(5, 40, 6)) * np.array([3, 0.6, 0.6, 0.6, 0.6])[:, None, None], axis=0)


def nearest(points: np.ndarray, k: int) -> np.ndarray:
    """(N, k): by sorting all distances."""
    squares = ((points[:, None] - points) ** 2).sum(-1)
    np.fill_diagonal(squares, np.inf)
    return np.argsort(squares, axis=1, kind="stable")[:, :k]


def edges(lists: np.ndarray, first: int = 0) -> set[tuple[int, int]]:
    return {(min(u, v) + first, max(u, v) + first) for u, row in enumerate(lists.tolist()) for v in row}


def cliques(vertices, pairs: set[tuple[int, int]]) -> list[tuple[int, ...]]:
    """Vertices, edges and triangles."""
    ends = sorted({v for pair in pairs for v in pair})
    triangles = [t for t in combinations(ends, 3) if all(p in pairs for p in combinations(t, 2))]
    return [*((v,) for v in vertices), *pairs, *triangles]


def union_line(points: np.ndarray, k: int) -> list[list[tuple[int, ...]]]:
    """K(X_0), K(X_0 u X_1), K(X_1), ... on vertices 0..2N-1: state l on block l mod 2."""
    count, n = points.shape[:2]
    line = []
    for s in range(count):
        first, other = n * (s % 2), n * ((s + 1) % 2)
        mine = edges(nearest(points[s], k), first)
        line.append(cliques(range(first, first + n), mine))
        if s + 1 < count:
            theirs = edges(nearest(points[s + 1], k), other)
            place = np.concatenate([np.arange(n) + first, np.arange(n) + other])
            joint = nearest(np.concatenate([points[s], points[s + 1]]), k)
            across = {tuple(sorted((int(place[u]), int(place[v])))) for u, v in edges(joint)}
            line.append(cliques(range(2 * n), mine | theirs | across))
    return line


def folded(bars, states: int) -> tp.Barcode:
    """Bars of K(X_0), n, K(X_0 u X_1), n, K(X_1), ...: each intersection is the state beside it."""
    return tp.Barcode.of([(p, (b + 1) // 2, (d + 1) // 2) for p, b, d in bars], states)


def unit(points: np.ndarray) -> np.ndarray:
    return points / np.linalg.norm(points, axis=-1, keepdims=True)


@settings(deadline=None, max_examples=60)
@given(clouds(samples=4, states=3))
def test_unions_equal_ranks(cloud) -> None:
    points, k = cloud
    line = union_line(points, k)
    expected = [bar for p in (0, 1) for bar in brute_force.bars(line, p)]
    assert tp.union_zigzag_barcode(points, k=k) == folded(expected, len(points))


@settings(deadline=None, max_examples=100)
@given(clouds(samples=14, states=4))
def test_unions_equal_the_general_reduction(cloud) -> None:
    points, k = cloud
    expected = tp.complexes_barcode(union_line(points, k)).to_array().tolist()
    assert tp.union_zigzag_barcode(points, k=k) == folded(expected, len(points))


def test_cosine_unions_are_those_of_the_directions() -> None:
    expected = folded(tp.complexes_barcode(union_line(unit(DRIFT), 5)).to_array().tolist(), 5)
    stretched = DRIFT * rng.uniform(0.1, 10, (5, 40, 1))
    assert tp.union_zigzag_barcode(stretched, k=5, metric="cosine") == expected


def test_higher_dimensions_agree_with_the_quick_way() -> None:
    few = DRIFT[:3, :12]
    slow, quick = (tp.union_zigzag_barcode(few, k=4, dimensions=d) for d in ((0, 1, 2), (0, 1)))
    assert tp.Barcode.of(slow.to_array()[slow.dimension < 2], 3) == quick


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_neighbors_in_unions_are_exact_for_every_k(kind, offset: float) -> None:
    """States of different size and place, as the layers of a decoder have them."""
    points = (
        rng.normal(size=(3, 60, 7)) * np.array([1, 20, 5])[:, None, None]
        + offset * np.arange(3)[:, None, None]
    )
    points = points.astype(kind)
    found = Neighbors.of(points, 12, unions="all")
    for (i, j), lists in found.between.items():
        joint = np.concatenate([points[i], points[j]]).astype(float)
        assert np.array_equal(lists, nearest(joint, 12))
    assert sorted(found.between) == [(0, 1), (0, 2), (1, 2)]


def test_neighbors_in_unions_survive_any_magnitude() -> None:
    """One state is too small and one too large for squares in float32."""
    points = rng.normal(size=(3, 20, 4)) * np.array([1e-30, 1, 1e30])[:, None, None]
    points = points.astype(np.float32)
    for (i, j), lists in Neighbors.of(points, 19, unions="all").between.items():
        assert np.array_equal(lists, nearest(np.concatenate([points[i], points[j]]).astype(float), 19))


def circle(n: int, center=(0.0, 0.0), turn: float = 0.0) -> np.ndarray:
    angle = 2 * np.pi * (np.arange(n) + turn) / n
    return np.stack([np.cos(angle), np.sin(angle)], axis=1) + center


def torus(n: int, turn: float) -> np.ndarray:
    """n x n points of a flat torus in four dimensions."""
    angle = 2 * np.pi * (np.arange(n) + turn) / n
    u, v = (a.ravel() for a in np.meshgrid(angle, angle))
    return np.stack([np.cos(u), np.sin(u), np.cos(v), np.sin(v)], axis=1)


def sphere(n: int, turn: float) -> np.ndarray:
    """Fibonacci's points on a sphere."""
    height = 1 - 2 * (np.arange(n) + 0.5) / n
    angle = np.pi * (1 + 5**0.5) * np.arange(n) + turn
    radius = np.sqrt(1 - height**2)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=1)


def test_a_circle_that_is_carried_over_keeps_its_loop() -> None:
    """In the second state every point lies between two of the first, whatever its label."""
    states = np.stack([circle(30), rng.permutation(circle(30, turn=0.5)), circle(30)])
    barcode = tp.union_zigzag_barcode(states, k=4)
    assert barcode == tp.Barcode.of([(0, 0, 5), (1, 0, 5)], 3)
    assert np.array_equal(tp.jaccard(barcode, 1), np.ones((3, 3)))


def test_a_circle_that_is_moved_away_is_another_circle() -> None:
    states = np.stack([circle(30), circle(30, (50, 0)), circle(30, (50, 0))])
    barcode = tp.union_zigzag_barcode(states, k=4)
    expected = [(p, *bar) for p in (0, 1) for bar in ((0, 2), (1, 5))]
    assert barcode == tp.Barcode.of(expected, 3)
    assert tp.jaccard(barcode, 1).tolist() == [[1, 0, 0], [0, 1, 1], [0, 1, 1]]
    assert tp.zigzag_barcode(states, k=4) == tp.Barcode.of([(0, 0, 5), (1, 0, 5)], 3)


def test_a_circle_that_is_filled_loses_its_loop() -> None:
    disk = rng.uniform(-1, 1, (400, 2))
    disk = np.concatenate([circle(40), 0.97 * disk[np.linalg.norm(disk, axis=1) < 1][:160]])
    ring = np.concatenate([circle(40)] * 5) * rng.uniform(0.97, 1, (200, 1))
    barcode = tp.union_zigzag_barcode(np.stack([ring, disk]), k=16)
    assert tp.betti(barcode, 1).tolist() == [1, 0]


def test_a_torus_keeps_both_loops_and_a_sphere_has_none() -> None:
    tori = tp.union_zigzag_barcode(np.stack([torus(12, turn) for turn in (0, 0.5, 0.2)]), k=8)
    assert tp.alive(tori, 1).tolist() == [[2] * 3] * 3
    spheres = np.stack([sphere(150, turn) for turn in (0, 0.05, 0.1)])
    barcode = tp.union_zigzag_barcode(spheres, k=8, dimensions=(0, 1, 2))
    assert [tp.betti(barcode, p).tolist() for p in (0, 1, 2)] == [[1] * 3, [0] * 3, [1] * 3]


def test_isometries_and_labels_change_nothing() -> None:
    expected = tp.union_zigzag_barcode(DRIFT, k=5)
    turn, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    assert tp.union_zigzag_barcode(3 * DRIFT @ turn + 7, k=5) == expected
    relabeled = np.stack([state[rng.permutation(40)] for state in DRIFT])
    assert tp.union_zigzag_barcode(relabeled, k=5) == expected
    assert tp.zigzag_barcode(relabeled, k=5) != tp.zigzag_barcode(DRIFT, k=5)


def test_time_reversal_mirrors_the_bars() -> None:
    there, back = tp.union_zigzag_barcode(DRIFT, k=5), tp.union_zigzag_barcode(DRIFT[::-1], k=5)
    last = 2 * len(DRIFT) - 1
    mirrored = np.stack([back.dimension, last - back.death, last - back.birth], axis=1)
    assert tp.Barcode.of(mirrored, len(DRIFT)) == there


@settings(deadline=None, max_examples=60)
@given(clouds(states=1))
def test_where_clouds_coincide_nothing_dies(cloud) -> None:
    """Folding the union of a cloud with itself onto the cloud is a retraction, so no class of it vanishes."""
    points, k = cloud
    both = np.stack([points[0], points[0]])
    barcode = tp.union_zigzag_barcode(both, k=k)
    assert not ((barcode.birth == 0) & (barcode.death == 1)).any()
    assert np.array_equal(tp.betti(barcode, 1), tp.betti(tp.zigzag_barcode(both, k=k), 1))


def test_coinciding_circles_give_the_bars_of_the_intersections() -> None:
    states = np.stack([circle(30)] * 4)
    assert tp.union_zigzag_barcode(states, k=6) == tp.zigzag_barcode(states, k=6)


def test_betti_numbers_are_those_of_the_states() -> None:
    barcode = tp.union_zigzag_barcode(DRIFT, k=4)
    static = tp.static_betti(DRIFT, k=4)
    assert np.array_equal(static, np.stack([tp.betti(barcode, p) for p in (0, 1)], axis=1))


def test_duplicates_are_points_like_others() -> None:
    twice = np.concatenate([DRIFT[:3, :15]] * 2, axis=1)
    expected = folded(tp.complexes_barcode(union_line(twice, 5)).to_array().tolist(), 3)
    assert tp.union_zigzag_barcode(twice, k=5) == expected
    same = np.ones((3, 10, 2))
    assert tp.union_zigzag_barcode(same, k=9) == tp.Barcode.of([(0, 0, 5)], 3)


@pytest.mark.parametrize("through", ["intersections", "unions"])
def test_scales_share_their_distances_and_direct_pairs_are_zigzags_of_two_states(through: str) -> None:
    single = tp.union_zigzag_barcode if through == "unions" else tp.zigzag_barcode
    for barcode, k in zip(tp.zigzag_barcodes(DRIFT, ks=(3, 6), through=through), (3, 6), strict=True):
        assert barcode == single(DRIFT, k=k)
    neighbors = Neighbors.of(DRIFT, 6, unions="all")
    shared = tp.alive_directly(neighbors, k=5, through=through, dimensions=(0, 1))
    for i, j in combinations(range(5), 2):
        pair = single(DRIFT[[i, j]], k=5)
        for p in (0, 1):
            assert np.array_equal(shared[p][np.ix_([i, j], [i, j])], tp.alive(pair, p))
    values = tp.similarity(DRIFT, ks=(5,), through=through, direct=True)
    assert np.array_equal(values, jaccards(shared[1]))
    through_states = tp.similarity(DRIFT, ks=(5,), through=through)
    assert np.array_equal(through_states, tp.jaccard(single(DRIFT, k=5), 1))
    assert np.allclose(np.diagonal(values, 1), np.diagonal(through_states, 1))


def jaccards(shared: np.ndarray) -> np.ndarray:
    beta = shared.diagonal()
    return shared / (beta[:, None] + beta - shared)


def test_the_default_scales_grow_with_the_logarithm() -> None:
    assert [tp.scales(n) for n in (1024, 2048)] == [(7, 10, 15), (8, 11, 16)]
    assert tp.scales(3) == (1, 2)
    assert np.array_equal(tp.similarity(DRIFT), tp.similarity(DRIFT, ks=tp.scales(40)))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: tp.union_zigzag_barcode(DRIFT, k=40), "k is 40 for 40 points"),
        (lambda: tp.union_zigzag_barcode(np.where(DRIFT > 4, np.nan, DRIFT), k=4), r"sample \d+ of state \d"),
        (lambda: tp.union_zigzag_barcode(0 * DRIFT, k=4, metric="cosine"), "sample 0 of state 0 is zero"),
        (lambda: tp.zigzag_barcodes(DRIFT, ks=(5, 50)), "k is 50 for 40 points"),
        (lambda: tp.zigzag_barcodes(DRIFT, ks=(4,), through="union"), "did you mean 'unions'"),
        (
            lambda: tp.similarity(DRIFT, ks=(4,), through="x"),
            "through is 'x'; allowed: intersections, unions",
        ),
        (lambda: tp.similarity(DRIFT, ks=(50,), direct=True), "k is 50 for 40 points"),
        (lambda: tp.similarity(DRIFT, ks=(4,), direct=True, dimensions=(2,)), "from 0 to 1"),
        (lambda: Neighbors.of(DRIFT, 4, unions="some"), "unions is 'some'; allowed: adjacent, all, none"),
        (lambda: Neighbors.of(DRIFT, 4).graph(0, 5), "k is 5; allowed: whole numbers from 1 to 4"),
        (lambda: tp.neighbors_barcode(Neighbors.of(DRIFT, 4), k=4, through="unions"), "was not searched"),
    ],
)
def test_bad_input_gives_one_sentence(call, sentence: str) -> None:
    with pytest.raises((InputError, OptionError), match=sentence) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_union_that_forgot_its_shift_would_be_noticed(monkeypatch) -> None:
    """The exactness tests can fail: states told apart by nothing but their middles."""
    from lmms_topoprune.topology._kernels import nearest as kernels

    expected = tp.union_zigzag_barcode(DRIFT, k=5)
    monkeypatch.setattr(kernels, "project", lambda centered, direction: np.zeros(len(centered)))
    assert tp.union_zigzag_barcode(DRIFT, k=5) != expected
