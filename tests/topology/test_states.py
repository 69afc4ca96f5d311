"""Point clouds of known shape, determinism, scales, controls, subsampling, and bad input."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from lmms_topoprune import topology as tp
from lmms_topoprune.criteria.gardinazzi import released_layers
from lmms_topoprune.errors import InputError, MissingExtraError, OptionError
from lmms_topoprune.selection import PairScores, select
from lmms_topoprune.topology import neighbors, plots, points
from lmms_topoprune.topology._kernels import compiled
from lmms_topoprune.topology.flag_zigzag import FlagHomology
from lmms_topoprune.topology.neighbors import Neighbors

rng = np.random.default_rng(0)
CLOUDS = np.cumsum(rng.normal(size=(5, 40, 6)), axis=0).astype(np.float32)


def graphs(states, k: int, metric: str = "euclidean") -> np.ndarray:
    """(S, N, N)"""
    found = Neighbors.of(states, k, metric)
    return np.stack([found.graph(state, k).matrix() for state in range(len(states))])


def circle(n: int) -> np.ndarray:
    angle = 2 * np.pi * np.arange(n) / n
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def test_a_circle_has_one_loop_in_every_state_and_it_is_the_same() -> None:
    barcode = tp.zigzag_barcode(np.stack([circle(30), 2 * circle(30), circle(30) + 5]), k=4)
    assert barcode == tp.Barcode.of([(0, 0, 5), (1, 0, 5)], 3)
    assert np.array_equal(tp.jaccard(barcode, 1), np.ones((3, 3)))


def test_a_loop_that_opens_dies() -> None:
    """The second state is a line, so the loop ends where the two no longer share it."""
    line = np.stack([np.arange(30.0), np.zeros(30)], axis=1)
    barcode = tp.zigzag_barcode(np.stack([circle(30), line]), k=4)
    assert tp.betti(barcode, 1).tolist() == [1, 0]


def test_two_circles_are_two_components() -> None:
    two = np.concatenate([circle(20), circle(20) + 50])[None]
    assert tp.zigzag_barcode(two, k=4) == tp.Barcode.of([(0, 0, 1)] * 2 + [(1, 0, 1)] * 2, 1)


def test_an_octahedron_has_a_void() -> None:
    octahedron = np.concatenate([np.eye(3), -np.eye(3)])[None]
    assert tp.zigzag_barcode(octahedron, k=4, dimensions=(0, 1, 2)).to_array().tolist() == [
        [0, 0, 1],
        [2, 0, 1],
    ]


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_change_nothing(threads: int) -> None:
    states = rng.normal(size=(3, 200, 300)).astype(np.float32)
    with threadpool_limits(threads):
        found = graphs(states, 6)
    squares = ((states[:, :, None].astype(float) - states[:, None]) ** 2).sum(-1)
    for graph, square in zip(found, squares, strict=True):
        np.fill_diagonal(square, np.inf)
        near = np.zeros(square.shape, dtype=bool)
        np.put_along_axis(near, np.argsort(square, axis=1, kind="stable")[:, :6], True, axis=1)
        assert np.array_equal(graph, near | near.T)


def test_a_coarse_gram_matrix_does_not_change_the_graph(monkeypatch) -> None:
    """Errors within the bound are made good; the same errors with no bound are not."""
    states = rng.normal(size=(1, 60, 8)).astype(np.float32)
    expected = graphs(states, 5)
    exact = neighbors.inner_products

    def rough(one, other):
        noise = np.random.default_rng(0).uniform(-0.04, 0.04, (60, 60)) * np.outer(one.length, other.length)
        return (exact(one, other) + noise).astype(np.float32)

    monkeypatch.setattr(neighbors, "inner_products", rough)
    monkeypatch.setattr(neighbors, "slack", lambda width: 0.2)
    assert np.array_equal(graphs(states, 5), expected)
    monkeypatch.setattr(neighbors, "slack", lambda width: 0.0)
    assert not np.array_equal(graphs(states, 5), expected)


@pytest.mark.parametrize("factor", [1e-25, 1e-3, 1e25])
def test_scale_and_offset_move_no_neighbor(factor: float) -> None:
    near = graphs(CLOUDS, 5)
    assert np.array_equal(graphs((CLOUDS * factor).astype(np.float32), 5), near)
    assert np.array_equal(graphs(CLOUDS.astype(float) + 1000, 5), near)


@pytest.mark.parametrize("exponent", [-540, 510, 1018])
def test_near_ties_are_told_apart_at_any_magnitude(exponent: int) -> None:
    """float32 cannot tell these distances apart, and their squares would overflow or vanish in float64."""
    ring = circle(40)[None] * (1 + 1e-9 * np.random.default_rng(2).normal(size=(1, 40, 1)))
    assert np.array_equal(graphs(np.ldexp(ring, exponent), 5), graphs(ring, 5))


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_distances_that_vanish_in_float32_are_computed_anew(kind) -> None:
    """Two far samples keep the scale at 1, and the others' squares lose their digits in float32."""
    generator = np.random.default_rng(5)
    for _ in range(40):
        near = generator.normal(size=(10, 2)) * 10 ** generator.uniform(-23, -17)
        cloud = np.concatenate([[[1, 0], [-1, 0]], near]).astype(kind)
        scaled = cloud.astype(float) * 1e20
        squares = ((scaled[:, None] - scaled) ** 2).sum(-1)
        np.fill_diagonal(squares, np.inf)
        expected = np.zeros(squares.shape, dtype=bool)
        np.put_along_axis(expected, np.argsort(squares, axis=1, kind="stable")[:, :3], True, axis=1)
        assert np.array_equal(graphs(cloud[None], 3)[0], expected | expected.T)


def test_autocast_does_not_coarsen_distances() -> None:
    torch = pytest.importorskip("torch")
    cpu, cloud = torch.device("cpu"), CLOUDS[0]
    expected = points._cuda_products(cloud, cloud, cpu)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert np.array_equal(points._cuda_products(cloud, cloud, cpu), expected)


def test_threads_leave_the_tf32_switch_alone(monkeypatch) -> None:
    """Saving and restoring it in several threads at once must neither lose it nor turn it on in between."""
    torch = pytest.importorskip("torch")
    switch = torch.backends.cuda.matmul
    before, switch.allow_tf32 = switch.allow_tf32, True
    seen, real = [], torch.from_numpy

    def slow(cloud):
        time.sleep(0.002)
        seen.append(switch.allow_tf32)
        return real(cloud)

    monkeypatch.setattr(torch, "from_numpy", slow)
    try:
        with ThreadPoolExecutor(4) as pool:
            cpu, cloud = torch.device("cpu"), CLOUDS[0]
            list(pool.map(lambda _: points._cuda_products(cloud, cloud, cpu), range(24)))
        assert not any(seen)
        assert switch.allow_tf32
    finally:
        switch.allow_tf32 = before


def test_cosine_looks_at_directions_only() -> None:
    lengths = rng.uniform(0.1, 10, (5, 40, 1))
    directions = CLOUDS.astype(float) / np.linalg.norm(CLOUDS, axis=-1, keepdims=True)
    expected = graphs(directions, 5, "euclidean")
    assert np.array_equal(graphs(directions * lengths, 5, "cosine"), expected)


def test_torch_tensors_give_the_same_bars() -> None:
    torch = pytest.importorskip("torch")
    expected = tp.zigzag_barcode(CLOUDS, k=4)
    assert tp.zigzag_barcode(torch.from_numpy(CLOUDS), k=4) == expected
    half = torch.from_numpy(CLOUDS).to(torch.bfloat16)
    assert tp.zigzag_barcode(half, k=4) == tp.zigzag_barcode(half.float().numpy(), k=4)
    assert tp.zigzag_barcode(list(half), k=4) == tp.zigzag_barcode(half, k=4)
    for wrong in (half.to(torch.complex64), half > 0):
        with pytest.raises(InputError, match="real numbers"):
            tp.zigzag_barcode(wrong, k=4)
    with pytest.raises(InputError, match="differ in shape"):
        tp.zigzag_barcode([half[0], half[1, 1:]], k=4)
    if torch.cuda.is_available():
        assert tp.zigzag_barcode(torch.from_numpy(CLOUDS).cuda(), k=4) == expected


def test_time_reversal_mirrors_the_bars() -> None:
    there, back = tp.zigzag_barcode(CLOUDS, k=4), tp.zigzag_barcode(CLOUDS[::-1], k=4)
    last = 2 * len(CLOUDS) - 1
    mirrored = np.stack([back.dimension, last - back.death, last - back.birth], axis=1)
    assert tp.Barcode.of(mirrored, len(CLOUDS)) == there


def test_several_scales_share_their_distances() -> None:
    for barcode, k in zip(tp.zigzag_barcodes(CLOUDS, ks=(3, 5)), (3, 5), strict=True):
        assert barcode == tp.zigzag_barcode(CLOUDS, k=k)


def test_controls() -> None:
    barcode = tp.zigzag_barcode(CLOUDS, k=4)
    static = tp.static_betti(CLOUDS, k=4)
    assert np.array_equal(static, np.stack([tp.betti(barcode, p) for p in (0, 1)], axis=1))
    found = Neighbors.of(CLOUDS, 6)
    assert np.array_equal(tp.static_betti(found, k=4), static)
    assert np.array_equal(tp.static_betti(found, k=4, dimensions=(1, 2))[:, 0], static[:, 1])
    shuffled, order = tp.shuffled_barcode(CLOUDS, k=4, seed=3)
    assert np.array_equal(tp.betti(shuffled, 1), tp.betti(barcode, 1)[order])
    assert tp.shuffled_barcode(list(CLOUDS), k=4, seed=3)[0] == shuffled


def test_bootstrap_equals_the_barcode_of_the_subset() -> None:
    found = tp.bootstrap(
        CLOUDS,
        lambda b: tp.jaccard(b, 1),
        k=4,
        replicates=3,
        seed=1,
        choose=lambda v: select(PairScores(v), 2),
    )
    generator = np.random.default_rng(1)
    for value in found.values:
        samples = np.sort(generator.choice(40, 32, replace=False))
        assert np.array_equal(value, tp.jaccard(tp.zigzag_barcode(CLOUDS[:, samples], k=4), 1))
    low, high = found.interval()
    assert (low <= high).all()
    assert found.frequency is not None
    assert found.frequency.sum() == pytest.approx(2)


def with_nan() -> np.ndarray:
    states = CLOUDS.copy()
    states[2, 7, 1] = np.nan
    return states


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: tp.zigzag_barcode(with_nan(), k=4), "sample 7 of state 2"),
        (lambda: tp.zigzag_barcode(np.inf * CLOUDS, k=4), "sample 0 of state"),
        (lambda: tp.zigzag_barcode(0 * CLOUDS, k=4, metric="cosine"), "sample 0 of state 0 is zero"),
        (lambda: tp.zigzag_barcode(CLOUDS[0], k=4), r"shape \(40, 6\)"),
        (
            lambda: tp.inter_layer_persistence(tp.zigzag_barcode(CLOUDS[:1], k=4), 1),
            "1 state; allowed: at least 2",
        ),
        (lambda: released_layers(tp.zigzag_barcode(CLOUDS[:1], k=4)), "1 state; allowed: at least 2"),
        (lambda: tp.zigzag_barcode(CLOUDS[:0], k=4), r"shape \(0, 40, 6\)"),
        (lambda: tp.zigzag_barcode([[[1], [2]], [[1]]], k=1), "different shapes"),
        (lambda: tp.zigzag_barcode(np.array([[["a"]]]), k=1), "real numbers"),
        (lambda: tp.complexes_barcode([]), "at least one complex"),
        (lambda: tp.graphs_barcode(np.ones((1, 2, 2), dtype=bool)), "graph 0"),
        (lambda: tp.graphs_barcode(np.ones((1, 2, 2))), "of bool"),
        (lambda: tp.zigzag_barcode(CLOUDS, k=40), "k is 40 for 40 points"),
        (lambda: tp.zigzag_barcode(CLOUDS, k=0), "k is 0"),
        (lambda: tp.zigzag_barcode(CLOUDS, k=4.0), "k is 4.0"),
        (lambda: tp.zigzag_barcode(CLOUDS, k=None), "k is None"),
        (lambda: tp.zigzag_barcode(CLOUDS, k=4, dimensions=1), "dimensions is 1"),
        (lambda: tp.zigzag_barcode(CLOUDS, k=4, dimensions=(0.5,)), "dimensions is"),
        (lambda: tp.zigzag_barcode(1e-310 * CLOUDS.astype(float), k=4, metric="cosine"), "nearly so"),
        (lambda: tp.zigzag_barcodes(CLOUDS, ks=()), r"ks is \(\); allowed"),
        (lambda: tp.zigzag_barcodes(CLOUDS, ks=5), "ks is 5; allowed: one or more whole numbers"),
        (lambda: tp.zigzag_barcodes(CLOUDS, ks="5"), "ks is '5'; allowed"),
        (lambda: tp.Bootstrap(np.ones((3, 2)), None).interval(95), "level is 95"),
        (lambda: tp.zigzag_barcode(CLOUDS, k=4, metric="cos"), "metric is 'cos'"),
        (lambda: tp.zigzag_barcode(CLOUDS, k=4, dimensions=()), "dimensions"),
        (
            lambda: tp.bootstrap(CLOUDS, lambda b: tp.jaccard(b, 1), k=4, fraction=0.05),
            "leaves 2 of 40 samples",
        ),
        (lambda: tp.bootstrap(CLOUDS, np.size, k=4, fraction=float("nan")), "fraction is nan; allowed"),
        (lambda: tp.bootstrap(CLOUDS, np.size, k=4, fraction="all"), "fraction is 'all'; allowed"),
        (lambda: tp.bootstrap(CLOUDS, np.size, k=4, replicates=1.5), "replicates is 1.5; allowed: whole"),
        (lambda: tp.bootstrap(CLOUDS, np.size, k=4, replicates=0), "replicates is 0; allowed: whole"),
        (lambda: tp.bootstrap(CLOUDS, np.size, k=4, seed=-1), "seed is -1; allowed: whole numbers from 0"),
    ],
)
def test_bad_input_gives_one_sentence(call, sentence: str) -> None:
    with pytest.raises((InputError, OptionError), match=sentence) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_plots(monkeypatch) -> None:
    barcode = tp.zigzag_barcode(CLOUDS, k=4)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(MissingExtraError, match="matplotlib"):
        plots.plot_barcode(barcode)
    monkeypatch.undo()
    pytest.importorskip("matplotlib").use("Agg")
    plots.plot_barcode(barcode)
    plots.plot_persistence_image(barcode)
    plots.plot_pairs(tp.jaccard(barcode, 1))
    ax = plots.plot_scores(tp.inter_layer_persistence(barcode, 1), dropped=(1, 2))
    assert [len(c.get_offsets()) for c in ax.collections] == [3, 2]


def test_importing_does_not_load_the_compiler() -> None:
    code = "import sys, lmms_topoprune.topology; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_nowhere_to_cache_is_no_error(monkeypatch) -> None:
    from numba.core.caching import CompileResultCacheImpl

    monkeypatch.setattr(CompileResultCacheImpl, "_locator_classes", [])
    assert compiled.kernel("int64(int64)")(lambda x: x + 1)(1) == 2


def test_wrong_maps_would_be_noticed(monkeypatch) -> None:
    """The exactness tests can fail: one loop that is followed wrongly changes the barcode."""
    expected, right = tp.zigzag_barcode(CLOUDS, k=4), FlagHomology.images

    def wrong(self, dimension, outer, first=0):
        found = right(self, dimension, outer, first)
        found[:1] = 0
        return found

    monkeypatch.setattr(FlagHomology, "images", wrong)
    assert tp.zigzag_barcode(CLOUDS, k=4) != expected
