"""The standard reduction of a boundary matrix over GF(2), by columns, with clearing."""

from __future__ import annotations

import numpy as np

from lmms_topoprune.topology._kernels.compiled import kernel

# mypy: disable-error-code="no-untyped-def"


ONE = np.uint64(1)
ZERO = np.uint64(0)
EIGHT = np.uint64(8)
BYTE = np.uint64(255)


@kernel("int64(uint64[:, ::1], int64, int64, int64)")
def lowest(rows, row, word, stop):
    """The lowest element of a row in the words word..stop-1, -1 if there is none."""
    for w in range(word, stop):
        if rows[row, w] != ZERO:
            bits = rows[row, w]
            place = 64 * w
            while bits & BYTE == ZERO:
                bits >>= EIGHT
                place += 8
            while bits & ONE == ZERO:
                bits >>= ONE
                place += 1
            return place
    return -1


@kernel("void(uint64[:, ::1], int64, uint64[:, ::1], int64, int64, int64)")
def add(target, t, source, s, word, stop):
    """Add row s of the source to row t of the target over GF(2), in the words word..stop-1."""
    for w in range(word, stop):
        target[t, w] ^= source[s, w]


# mypy: disable-error-code="no-untyped-def"


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


# mypy: disable-error-code="no-untyped-def"


@kernel("int64[::1](int64[:, ::1], int64[::1], int64[::1], int64[::1])")
def reduce_columns(facets, order, place, dimension):
    """low (columns,): the row that each column kills, -1 for none. Highest dimension first, with clearing."""
    n, width = facets.shape
    total = 2 * n + 1
    low = np.full(total, -1, np.int64)
    owner = np.full(total, -1, np.int64)
    start = np.zeros(total, np.int64)
    size = np.zeros(total, np.int64)
    store = np.empty(8 * total, np.int32)
    used = 0
    column = np.empty(64, np.int32)
    other = np.empty(64, np.int32)
    for d in range(dimension.max(), 0, -1):
        for c in range(1, total):
            if dimension[c] != d or owner[c] >= 0:
                continue
            cell = c - 1 if c <= n else order[c - n - 1]
            length = 0
            for f in range(width):
                if facets[cell, f] < 0:
                    break
                column[length] = facets[cell, f] + 1 if c <= n else place[facets[cell, f]]
                length += 1
            if c > n:
                column[length] = cell + 1
                length += 1
                if d == 1:
                    column[length] = 0
                    length += 1
            column[:length].sort()
            while length > 0 and owner[column[length - 1]] >= 0:
                o = owner[column[length - 1]]
                if len(other) < length + size[o]:
                    other = np.empty(2 * (length + size[o]), np.int32)
                # Symmetric difference of two sorted columns.
                i, j, m, stop = 0, start[o], 0, start[o] + size[o]
                while i < length and j < stop:
                    if column[i] == store[j]:
                        i += 1
                        j += 1
                    elif column[i] < store[j]:
                        other[m] = column[i]
                        i += 1
                        m += 1
                    else:
                        other[m] = store[j]
                        j += 1
                        m += 1
                while i < length:
                    other[m] = column[i]
                    i += 1
                    m += 1
                while j < stop:
                    other[m] = store[j]
                    j += 1
                    m += 1
                column, other, length = other, column, m
            if length == 0:
                continue
            if used + length > len(store):
                larger = np.empty(2 * (used + length), np.int32)
                larger[:used] = store[:used]
                store = larger
            store[used : used + length] = column[:length]
            start[c], size[c] = used, length
            used += length
            low[c] = column[length - 1]
            owner[low[c]] = c
    return low
