"""Selection rules against exhaustive search, and their one-sentence errors."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmms_topoprune.errors import InputError, OptionError
from lmms_topoprune.selection import LayerScores, PairScores, select


def blocks(layers) -> list[tuple[int, int]]:
    """The maximal runs [i, j) of a set of layers."""
    out: list[list[int]] = []
    for layer in sorted(layers):
        if out and out[-1][1] == layer:
            out[-1][1] = layer + 1
        else:
            out.append([layer, layer + 1])
    return [(i, j) for i, j in out]


def cost(similarity, layers) -> float:
    return sum(-np.log(similarity[i, j]) for i, j in blocks(layers))


@settings(deadline=None, max_examples=60)
@given(st.integers(3, 8), st.integers(0, 2**32 - 1), st.integers(0, 2), st.data())
def test_path_is_the_best_of_all_sets(layers: int, seed: int, protect: int, data) -> None:
    similarity = np.random.default_rng(seed).uniform(0.01, 1, (layers + 1, layers + 1))
    free = range(protect, layers - 1)
    drop = data.draw(st.integers(0, len(free)))
    found = select(PairScores(similarity), drop, protect_first=protect, protect_last=1)
    best = min((cost(similarity, c) for c in combinations(free, drop)), default=0.0)
    assert len(found) == drop
    assert set(found) <= set(free)
    assert cost(similarity, found) == pytest.approx(best)


def test_path_uses_several_blocks_and_block_only_one() -> None:
    similarity = np.full((9, 9), 0.1)
    similarity[1, 3] = similarity[5, 7] = 0.9
    similarity[2, 6] = 0.5
    assert select(PairScores(similarity), 4) == (1, 2, 5, 6)
    assert select(PairScores(similarity), 4, rule="block") == (2, 3, 4, 5)


def test_rank_takes_the_highest_and_breaks_ties_by_the_lower_layer() -> None:
    scores = LayerScores(np.array([9.0, 1, 3, 3, 3, 9]))
    assert select(scores, 2) == (2, 3)
    assert select(scores, 2, protect_first=0, protect_last=0) == (0, 5)
    assert select(scores, 2, forbidden={2}) == (3, 4)


def test_threshold_finds_its_own_number() -> None:
    scores = LayerScores(np.array([0.1, 0.85, 0.95, 1.0, 0.5]))
    assert select(scores, 0, rule="threshold", eps=0.9) == (2, 3)
    assert select(scores, 0, rule="threshold", eps=0.8) == (1, 2, 3)


def test_zero_similarity_still_has_a_path() -> None:
    assert len(select(PairScores(np.zeros((6, 6))), 3)) == 3


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: select(LayerScores(np.ones(4)), 1, rule="blok"), "did you mean 'block'"),
        (lambda: select(LayerScores(np.ones(4)), 1, rule="path"), "no score for pairs"),
        (lambda: select(LayerScores(np.ones(4)), 3), "2 of 4 layers may go"),
        (lambda: select(LayerScores(np.ones(4)), 4, protect_first=0, protect_last=0), "3 of 4 layers may go"),
        (lambda: select(LayerScores(np.ones(4)), -1), "drop is -1"),
        (lambda: select(LayerScores(np.ones(4)), 1.5), "drop is 1.5"),
        (lambda: select(np.ones(4), 1), "of type ndarray"),
        (lambda: select(LayerScores(np.ones(4)), 1, protect_first=-1), "protect_first"),
        (lambda: select(LayerScores(np.ones(5)), 2, rule="block", forbidden={2}), "neighboring"),
        (lambda: select(LayerScores(np.ones(3)), 0, rule="threshold", eps=0), "eps is 0"),
        (
            lambda: select(LayerScores(np.ones(3)), 0, rule="threshold", protect_first=0, protect_last=0),
            "drops all 3 layers",
        ),
    ],
)
def test_a_mistake_gives_one_sentence(call, sentence: str) -> None:
    with pytest.raises((InputError, OptionError), match=sentence) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("values", [np.ones((2, 3)), np.array([1, np.nan]), np.ones(0)])
def test_scores_refuse_what_they_cannot_be(values) -> None:
    with pytest.raises(InputError):
        (PairScores if values.ndim == 2 else LayerScores)(values)


def test_similarities_stay_within_0_and_1() -> None:
    rounded = np.full((4, 4), 1 + 1e-9)
    assert PairScores(rounded).values.max() == 1
    for wrong in (-0.1, 1.1, np.inf):
        values = np.full((4, 4), 0.5)
        values[1, 2] = wrong
        with pytest.raises(InputError, match=r"scores is .* at \(1, 2\); allowed: "):
            PairScores(values)
    with pytest.raises(InputError, match="something else than numbers"):
        LayerScores(["a", "b"])


def test_a_forbidden_layer_has_to_exist() -> None:
    for layer in (4, -1):
        with pytest.raises(OptionError, match=f"forbidden holds {layer}; allowed: layers from 0 to 3"):
            select(LayerScores(np.ones(4)), 1, forbidden={layer})


def test_a_threshold_is_a_share_of_the_maximum_over_all_layers() -> None:
    """Also of layers that stay: protection does not lower the bar (Gardinazzi et al., algorithm 2)."""
    scores = LayerScores(np.array([1.0, 0.5, 0.48, 0.95, 0.1, 0.2]))
    assert select(scores, 0, rule="threshold") == (3,)
    assert select(scores, 0, rule="threshold", forbidden={3}) == ()
    assert select(scores, 0, rule="threshold", eps=0.5, forbidden={3}) == (1,)
