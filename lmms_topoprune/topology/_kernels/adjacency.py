"""Graphs as compressed rows: start (N + 1,), and near (2E,) with each vertex's neighbors, ascending."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import numpy as np

from lmms_topoprune.topology._kernels.compiled import kernel


@kernel("Tuple((int64[::1], int64[::1]))(int32[:, ::1])")
def symmetrized(lists):
    """Vertex v joined to lists[v], both ways; repetitions count once."""
    n, m = lists.shape
    start = np.zeros(n + 1, np.int64)
    for v in range(n):
        for r in range(m):
            start[v + 1] += 1
            start[lists[v, r] + 1] += 1
    for v in range(n):
        start[v + 1] += start[v]
    near, filled = np.empty(start[n], np.int64), start[:-1].copy()
    for v in range(n):  # ascending, so that rows are nearly sorted
        for r in range(m):
            u = lists[v, r]
            near[filled[u]] = v
            filled[u] += 1
    used = 0
    for v in range(n):
        low, high = start[v], filled[v]
        for r in range(m):
            u, place = lists[v, r], high
            while place > low and near[place - 1] > u:
                near[place] = near[place - 1]
                place -= 1
            near[place] = u
            high += 1
        start[v], last = used, -1
        for p in range(low, high):
            if near[p] != last:
                last = near[used] = near[p]
                used += 1
    start[n] = used
    return start, near[:used].copy()


@kernel("Tuple((int64[::1], int64[::1]))(int64[::1], int64[::1], int64[::1], int64[::1])")
def common(start, near, other_start, other_near):
    """The edges of both graphs."""
    n = len(start) - 1
    first, shared, used = np.zeros(n + 1, np.int64), np.empty(len(near), np.int64), 0
    for v in range(n):
        i, j = start[v], other_start[v]
        while i < start[v + 1] and j < other_start[v + 1]:
            a, b = near[i], other_near[j]
            if a == b:
                shared[used] = a
                used += 1
            i += a <= b
            j += b <= a
        first[v + 1] = used
    return first, shared[:used].copy()


@kernel("int64[::1](int64[::1], int64[::1], int64[::1], int64[::1])")
def positions(start, near, tails, heads):
    """Where the edges stand in `near`; each of them must be one of the graph."""
    out = np.empty(len(tails), np.int64)
    for e in range(len(tails)):
        low, high = start[tails[e]], start[tails[e] + 1]
        while high - low > 1:
            middle = (low + high) // 2
            if near[middle] <= heads[e]:
                low = middle
            else:
                high = middle
        out[e] = low
    return out
