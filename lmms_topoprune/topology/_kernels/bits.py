"""Sets as rows of 64-bit words."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import numpy as np

from lmms_topoprune.topology._kernels.compiled import kernel

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
