"""The standard reduction of a boundary matrix over GF(2), by columns, with clearing."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import numpy as np

from lmms_topoprune.topology._kernels.compiled import kernel


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
