"""Interval decomposition of a zigzag module given by matrices over GF(2).

Carlsson and de Silva, "Zigzag persistence", FoCM 2010 (arXiv 0812.0197): a basis of the newest space is
kept that is ordered by the right filtration. Along a backward map its order decides which vectors have a
preimage, along a forward map which images are new; kernels enter at the front, cokernels at the end.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmms_topoprune.topology._kernels.bits import ONE, add, lowest
from lmms_topoprune.topology._kernels.compiled import kernel

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
    """Go from a state over an intersection to the next state.

    Args:
        basis: of the state.
        left, right: (m, words) images of the intersection's basis in the two states; left is overwritten.
        live: (64 * words,) the next state's slots.
        index: the intersection's index.

    Returns:
        The next state's basis, and the bars (bars, 2) that ended.
    """
    n, m = len(basis.birth), len(left)
    wide = -(-n // 64)
    rows = np.concatenate([np.zeros((m, wide), dtype=np.uint64), right], axis=1)
    work = np.full((4, n + m), -1, dtype=np.int64)
    entered = _backward(basis.vectors, basis.owner, basis.birth, left, rows, work, index)
    size = int(live.sum())  # one row more is scratch space
    scratch, owner, birth = _empty(size + 1, live, index + 1)
    count = _forward(rows, wide, entered, work, scratch, owner, birth)
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


@kernel("int64(uint64[:, ::1], int64[::1], int64[::1], uint64[:, ::1], uint64[:, ::1], int64[:, ::1], int64)")
def _backward(vectors, owner, birth, left, rows, work, index):
    """Bring rows into the order of the intersection's new basis.

    work[0], work[1]: the rows in order and their births; work[2]: the row above each old vector or -1.
    Returns the number of rows.
    """
    n, m, old, width = len(birth), len(left), left.shape[1], rows.shape[1]
    wide = (n + 63) // 64
    order, born, above = work[0], work[1], work[2]
    entered = 0
    for c in range(m):
        # Coordinates in the ordered basis, last vector first.
        p = lowest(left, c, 0, old)
        while p >= 0:
            q = n - 1 - owner[p]
            rows[c, q // 64] |= ONE << np.uint64(q % 64)
            add(left, c, vectors, owner[p], p // 64, old)
            p = lowest(left, c, p // 64, old)
        q = lowest(rows, c, 0, wide)
        while q >= 0 and above[n - 1 - q] >= 0:
            add(rows, c, rows, above[n - 1 - q], q // 64, width)
            q = lowest(rows, c, q // 64, wide)
        if q >= 0:
            above[n - 1 - q] = c
        else:
            order[entered], born[entered] = c, index
            entered += 1
    for j in range(n):
        if above[j] >= 0:
            order[entered], born[entered] = above[j], birth[j]
            entered += 1
    return entered


@kernel("int64(uint64[:, ::1], int64, int64, int64[:, ::1], uint64[:, ::1], int64[::1], int64[::1])")
def _forward(rows, wide, entered, work, vectors, owner, birth):
    """Reduce the rows' images in their order; work[3]: 0 for a row that lives on. Returns their number."""
    width = rows.shape[1]
    count = 0
    for i in range(entered):
        c = work[0, i]
        for w in range(wide, width):
            vectors[count, w - wide] = rows[c, w]
        p = lowest(vectors, count, 0, width - wide)
        while p >= 0 and owner[p] >= 0:
            add(vectors, count, vectors, owner[p], p // 64, width - wide)
            p = lowest(vectors, count, p // 64, width - wide)
        if p >= 0:
            owner[p], birth[count], work[3, i] = count, work[1, i], 0
            count += 1
    return count
