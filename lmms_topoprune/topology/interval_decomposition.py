"""Interval decomposition of a zigzag module given by matrices over GF(2).

Carlsson and de Silva, "Zigzag persistence", FoCM 2010 (arXiv 0812.0197): a basis of the newest space is
kept that is ordered by the right filtration. Along a backward map its order decides which vectors have a
preimage, along a forward map which images are new; kernels enter at the front, cokernels at the end.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmms_topoprune.topology._kernels.filtration import backward, forward

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]


@dataclass(frozen=True)
class Basis:
    """An ordered basis of one space.

    Attributes:
        vectors: (n, words) over GF(2), one bit a slot; the lowest elements differ.
        owner: (64 * words,) the vector with this lowest element, -1 for none.
        birth: (n,) index at which each vector's bar begins.
    """

    vectors: Words
    owner: Ints
    birth: Ints

    @classmethod
    def units(cls, live: NDArray[np.bool_]) -> Basis:
        """The basis of the first space: a unit vector for each live slot."""
        slots = np.flatnonzero(live)
        basis = cls(*_empty(len(slots), live, 0))
        basis.vectors[np.arange(len(slots)), slots // 64] = np.uint64(1) << (slots % 64).astype(np.uint64)
        basis.owner[slots] = np.arange(len(slots))
        return basis

    def ended(self, index: int) -> Ints:
        """(n, 2): the bars if the module ends before this index."""
        return np.stack([self.birth, np.full_like(self.birth, index)], axis=1)


def advance(
    basis: Basis, left: Words, right: Words, live: NDArray[np.bool_], index: int
) -> tuple[Basis, Ints]:
    """Go from a large complex over a small one, which lies in both, to the next large one.

    Args:
        basis: of the large complex.
        left, right: (m, words) images of the small one's basis in the two large ones; left is overwritten.
        live: (64 * words,) the next large complex's slots.
        index: the small complex's index.

    Returns:
        The next large complex's basis, and the bars (bars, 2) that ended.
    """
    n, m = len(basis.birth), len(left)
    wide = -(-n // 64)
    rows = np.concatenate([np.zeros((m, wide), dtype=np.uint64), right], axis=1)
    work = np.full((4, n + m), -1, dtype=np.int64)
    entered = backward(basis.vectors, basis.owner, basis.birth, left, rows, work, index)
    size = int(live.sum())  # one row more is scratch space
    scratch, owner, birth = _empty(size + 1, live, index + 1)
    count = forward(rows, wide, entered, work, scratch, owner, birth)
    vectors, birth = scratch[:size], birth[:size]
    slots = np.flatnonzero(live & (owner < 0))
    fresh = np.arange(count, count + len(slots))
    vectors[fresh, slots // 64] = np.uint64(1) << (slots % 64).astype(np.uint64)
    owner[slots] = fresh
    lost, killed = basis.birth[work[2, :n] < 0], work[1, :entered][work[3, :entered] < 0]
    bars = np.concatenate(
        [np.stack([lost, np.full_like(lost, index)]), np.stack([killed, np.full_like(killed, index + 1)])],
        axis=1,
    )
    return Basis(vectors, owner, birth), bars.T


def _empty(n: int, live: NDArray[np.bool_], birth: int) -> tuple[Words, Ints, Ints]:
    vectors = np.zeros((n, len(live) // 64), dtype=np.uint64)
    return vectors, np.full(len(live), -1, dtype=np.int64), np.full(n, birth, dtype=np.int64)
