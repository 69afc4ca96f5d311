"""One step of the right filtration of a zigzag module (Carlsson and de Silva, arXiv 0812.0197)."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import numpy as np

from lmms_topoprune.topology._kernels.bits import ONE, add, lowest
from lmms_topoprune.topology._kernels.compiled import kernel


@kernel("int64(uint64[:, ::1], int64[::1], int64[::1], uint64[:, ::1], uint64[:, ::1], int64[:, ::1], int64)")
def backward(vectors, owner, birth, left, rows, work, index):
    """Bring rows into the order of the small complex's new basis.

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
def forward(rows, wide, entered, work, vectors, owner, birth):
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
