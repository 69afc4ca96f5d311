"""Descriptors against their definitions, bar by bar."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmms_topoprune import topology as tp
from lmms_topoprune.criteria.gardinazzi import released_layers
from lmms_topoprune.errors import InputError, OptionError


@st.composite
def barcodes(draw):
    states = draw(st.integers(2, 6))
    last = 2 * states - 1
    bars = []
    for _ in range(draw(st.integers(0, 12))):
        birth = draw(st.integers(0, last - 1))
        bars.append((draw(st.integers(0, 1)), birth, draw(st.integers(birth + 1, last))))
    return tp.Barcode.of(bars, states)


def held(barcode, p):
    """(bars, S): whether each bar is alive at each state, from its indices alone."""
    even = 2 * np.arange(barcode.states)
    bars = barcode.bars(p)
    return (bars[:, :1] <= even) & (even < bars[:, 1:])


@settings(deadline=None, max_examples=150)
@given(barcodes(), st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0]))
def test_descriptors_follow_their_definitions(barcode, alpha: float) -> None:
    for p in (0, 1):
        at = held(barcode, p).astype(int)
        shared = at.T @ at
        beta = at.sum(0)
        states = barcode.states
        assert np.array_equal(tp.alive(barcode, p), shared)
        assert np.array_equal(tp.betti(barcode, p), beta)
        averages, jaccards = tp.inter_layer_persistence(barcode, p, alpha), tp.jaccard(barcode, p)
        for i in range(states):
            weights = {j: abs(i - j) ** alpha for j in range(states) if j != i}
            z = {j: shared[i, j] / beta[i] if beta[i] else 0 for j in range(states)}
            assert averages[i] == pytest.approx(
                sum(w * z[j] for j, w in weights.items()) / sum(weights.values())
            )
            for j in range(states):
                union = (at[:, i] | at[:, j]).sum()
                assert jaccards[i, j] == pytest.approx(shared[i, j] / union if union else 1)
        image = tp.effective_persistence_image(barcode, p)
        expected = np.zeros_like(image)
        for birth, death in barcode.bars(p):
            b, d = -(-birth // 2), -(-death // 2)
            expected[b if b < states else 0, d] += b != d
        assert np.array_equal(image, expected)


@settings(deadline=None, max_examples=40)
@given(barcodes(), st.floats(0.3, 3))
def test_smooth_image_is_the_sum_over_bars(barcode, sigma: float) -> None:
    image = tp.effective_persistence_image(barcode, 1)
    expected = np.zeros((barcode.states, barcode.states))
    for b, d in np.argwhere(image):
        u, v = np.mgrid[: barcode.states, 1 : barcode.states + 1]
        expected += image[b, d] * (d - b) * np.exp(-((u - b) ** 2 + (v - (d - b)) ** 2) / (2 * sigma**2))
    assert np.allclose(tp.smooth_persistence_image(barcode, 1, sigma), expected)
    assert np.allclose(tp.activity(barcode, 1, sigma), expected.sum(1))
    share = tp.births_relative_frequency(barcode, 1)
    assert share.sum() == pytest.approx(1 if image.any() else 0)


def test_releasing_rule_divides_by_the_other_state() -> None:
    bars = [(1, 0, 3), (1, 2, 5), (1, 2, 5), (1, 4, 7)]
    barcode = tp.Barcode.of(bars, 4)
    shared, beta = tp.alive(barcode, 1), tp.betti(barcode, 1)
    expected = [np.mean([shared[i, j] / beta[j] for j in range(4)]) for i in range(4)]
    assert np.allclose(tp.released_persistence(barcode), expected)
    assert released_layers(barcode, eps=0.9) == tuple(
        i for i in range(3) if expected[i] >= 0.9 * max(expected)
    )


def test_a_published_file_can_be_replayed(tmp_path) -> None:
    path = tmp_path / "bars.csv"
    path.write_text("dimension,birth,death\n1,1,4\n1,3,6\n1,3,6\n1,5,8\n")
    barcode = tp.Barcode.load(path, first=1)
    assert barcode == tp.Barcode.of([(1, 0, 3), (1, 2, 5), (1, 2, 5), (1, 4, 7)])
    assert released_layers(barcode) == released_layers(tp.Barcode.of(barcode.to_array(), 4))
    barcode.save(path)
    assert tp.Barcode.load(path, states=4) == barcode


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("closed", [False, True])
def test_closed_and_half_open_files_give_the_same_bars(tmp_path, first: int, closed: bool) -> None:
    bars = np.array([[0, 0, 7], [0, 0, 3], [1, 1, 4], [1, 3, 6]]) + np.array([0, first, first - closed])
    path = tmp_path / "bars.txt"
    np.savetxt(path, bars, fmt="%d")  # apart by blanks, as FastZigZag's program writes them
    expected = tp.Barcode.of([(0, 0, 7), (0, 0, 3), (1, 1, 4), (1, 3, 6)])
    assert tp.Barcode.load(path, first=first, closed=closed) == expected
    if not closed:
        assert tp.Barcode.load(path, first=first) == expected


@pytest.mark.parametrize(
    ("text", "closed", "sentence"),
    [
        ("1,0,3\n1,6,6\n", None, "bar 1 is '1,6,6', which only a closed interval can be; pass closed=True"),
        ("1,0,3\n1,6,6\n", False, "pass closed=True"),
        ("0,0,6\n1,3,4\n", None, "ends at 6, where no half-open component ends"),
    ],
)
def test_a_file_that_shows_closed_ends_is_refused(tmp_path, text: str, closed, sentence: str) -> None:
    (tmp_path / "bars.csv").write_text(text)
    with pytest.raises(InputError, match=sentence):
        tp.Barcode.load(tmp_path / "bars.csv", closed=closed)


def test_a_file_that_looks_otherwise_than_said_is_read_with_a_warning(tmp_path) -> None:
    (tmp_path / "open.csv").write_text("0,0,7\n")
    (tmp_path / "closed.csv").write_text("0,0,6\n")
    with pytest.warns(UserWarning, match="looks half-open, but closed=True"):
        assert tp.Barcode.load(tmp_path / "open.csv", closed=True).bars(0).tolist() == [[0, 8]]
    with pytest.warns(UserWarning, match="looks closed, but closed=False"):
        assert tp.Barcode.load(tmp_path / "closed.csv", closed=False).bars(0).tolist() == [[0, 6]]


@pytest.mark.parametrize(
    ("rows", "states", "sentence"),
    [
        ([(1, 0, 1, 10**9)], 2, "bars; allowed: at most"),
        ([(1, 0, 1, 2**21)] * 3, 2, "bars; allowed: at most"),
        ([(1, 0, 1, 1)], 10**9, "states; allowed: at most"),
        ([(1, 0, 10**30, 1)], 2, "counted bars are broken"),
        ([(1, 0, 1, 1.5)], 2, "counted bars are broken"),
        ([(1, 0, 1, 0)], 2, "counted bars are broken"),
        ([(1, 0, 1)], 2, "counted bars are broken"),
    ],
)
def test_a_small_file_cannot_cost_much_memory(rows, states: int, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        tp.Barcode.from_counted(rows, states)


def test_a_file_of_one_bar_cannot_ask_for_many_states(tmp_path) -> None:
    (tmp_path / "bars.csv").write_text("1,0,900719925474099\n")
    with pytest.raises(InputError, match=r"has 4.5\d+e\+14 states; allowed: at most"):
        tp.Barcode.load(tmp_path / "bars.csv")


def test_counted_bars_come_back() -> None:
    barcode = tp.Barcode.of([(0, 0, 3), (1, 0, 1), (1, 0, 1), (1, 0, 1)], 2)
    assert barcode.counted() == [[0, 0, 3, 1], [1, 0, 1, 3]]
    assert tp.Barcode.from_counted([tuple(row) for row in barcode.counted()], 2) == barcode


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("1,2\n", "bar 0 is '1,2'"),
        ("1,4,3\n", "birth < death"),
        ("0,1,x\n", "bar 0"),
        ("0,0.5,3\n", "fractions"),
        ("0,0,nan\n", "bar 0 is .*nan.*whole numbers"),
        ("0,0,inf\n", "bar 0 is .*inf.*whole numbers"),
        ("1,0,1e20\n", "has 5e+19 states".replace("+", r"\+")),
        ("x,0,3\n1,0,3\n", "bar 0 is 'x,0,3'"),
        ("birth,death,dimension\n0,1,1\n", "has the columns birth,death,dimension"),
    ],
)
def test_a_bad_file_is_named(tmp_path, text: str, sentence: str) -> None:
    (tmp_path / "bars.csv").write_text(text)
    with pytest.raises(InputError, match=sentence):
        tp.Barcode.load(tmp_path / "bars.csv")


def test_a_byte_order_mark_costs_no_bar_and_other_bytes_are_refused(tmp_path) -> None:
    path = tmp_path / "bars.csv"
    path.write_bytes(b"\xef\xbb\xbf1,0,3\r\n1,0,1\r\n")
    assert len(tp.Barcode.load(path)) == 2
    path.write_bytes(b"\xff\xfe1")
    with pytest.raises(InputError, match="not a text file"):
        tp.Barcode.load(path)


def test_combined_jaccard_lets_only_scales_with_features_vote() -> None:
    one, other = tp.Barcode.of([(0, 0, 3), (1, 0, 1)], 2), tp.Barcode.of([(0, 0, 3)], 2)
    assert tp.combined_jaccard([one, other])[0, 1] == pytest.approx((1 + 0 + 1) / 3)
    with pytest.raises(InputError, match="different numbers of states"):
        tp.combined_jaccard([one, tp.Barcode.of([], 3)])
    for barcodes in ([], [one, tp.Barcode.of([], 3)]):
        with pytest.raises(InputError, match="different numbers of states"):
            tp.combined_persistence(barcodes)
    with pytest.raises(InputError, match="states is 0"):
        tp.Barcode.of([], 0)


def test_options_are_checked() -> None:
    barcode = tp.Barcode.of([(1, 0, 3)], 2)
    with pytest.raises(OptionError, match="alpha"):
        tp.inter_layer_persistence(barcode, 1, float("nan"))
    with pytest.raises(OptionError, match="sigma"):
        tp.smooth_persistence_image(barcode, 1, 0)
    assert tp.bottleneck_distance(barcode, barcode, 1) == 0


@pytest.mark.parametrize("huge", [500.0, 1e300, 1.7e308])
def test_a_huge_alpha_is_the_limit(huge: float) -> None:
    """Bars 0-1, 0-3 and 2-3 in four states: by hand, all weight lies on the farthest or the nearest state."""
    barcode = tp.Barcode.of([(1, 0, 3), (1, 0, 7), (1, 4, 7)], 4)
    assert np.allclose(tp.inter_layer_persistence(barcode, 1, huge), [1 / 2, 1 / 2, 1 / 2, 1 / 2])
    assert np.allclose(tp.inter_layer_persistence(barcode, 1, -huge), [1, 3 / 4, 3 / 4, 1])
    assert np.allclose(tp.births_relative_frequency(barcode, 1, huge), [1, 0, 0, 0])
    assert np.allclose(tp.births_relative_frequency(barcode, 1, -huge), [1 / 2, 0, 1 / 2, 0])


@settings(deadline=None, max_examples=60)
@given(barcodes(), st.floats(allow_nan=False, allow_infinity=False))
def test_no_alpha_gives_anything_but_numbers(barcode, alpha: float) -> None:
    averages = tp.inter_layer_persistence(barcode, 1, alpha)
    assert (averages >= 0).all() and (averages <= 1 + 1e-12).all()
    share = tp.births_relative_frequency(barcode, 1, alpha).sum()
    born = tp.effective_persistence_image(barcode, 1).any()
    assert share == pytest.approx(1 if born else 0)


@pytest.mark.parametrize("sigma", [5e-324, 1e-200, 1e-3])
def test_a_tiny_sigma_leaves_the_bars_where_they_are(sigma: float) -> None:
    barcode = tp.Barcode.of([(1, 0, 3), (1, 0, 3), (1, 2, 7)], 4)
    image = tp.smooth_persistence_image(barcode, 1, sigma)
    expected = np.zeros((4, 4))
    expected[0, 1], expected[1, 2] = 2 * 2, 3  # births 0 and 1, lifetimes 2 and 3, each weighing its lifetime
    assert np.array_equal(image, expected)
    assert np.isfinite(tp.smooth_persistence_image(barcode, 1, 1e308)).all()
