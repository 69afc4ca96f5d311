"""Graphs as compressed rows: start (N + 1,), and near (2E,) with each vertex's neighbors, ascending."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from lmms_topoprune.topology._kernels.compiled import kernel


@kernel("void(int32[:, ::1], int64[::1], int64[::1], int64[::1])")
def symmetrized(lists, start, near, filled):
    """Vertex v joined to lists[v], both ways; repetitions count once.

    start (N + 1,) zeros and start[N] entries of near (2 * lists.size,) are filled; filled (N,) is scratch.
    """
    n, m = lists.shape
    for v in range(n):
        for r in range(m):
            start[v + 1] += 1
            start[lists[v, r] + 1] += 1
    for v in range(n):
        start[v + 1] += start[v]
    for v in range(n):
        filled[v] = start[v]
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


@kernel("void(int64[::1], int64[::1], int64[::1], int64[::1], int64[::1], int64[::1])")
def common(start, near, other_start, other_near, first, shared):
    """The edges of both graphs: first (N + 1,) zeros and shared, first[N] entries of it, are filled."""
    used = 0
    for v in range(len(start) - 1):
        i, j = start[v], other_start[v]
        while i < start[v + 1] and j < other_start[v + 1]:
            a, b = near[i], other_near[j]
            if a == b:
                shared[used] = a
                used += 1
            i += a <= b
            j += b <= a
        first[v + 1] = used


@kernel("void(int64[::1], int64[::1], int64[::1], int64[::1], int64[::1])")
def positions(start, near, tails, heads, out):
    """Where the edges stand in `near`; each of them must be one of the graph."""
    for e in range(len(tails)):
        low, high = start[tails[e]], start[tails[e] + 1]
        while high - low > 1:
            middle = (low + high) // 2
            if near[middle] <= heads[e]:
                low = middle
            else:
                high = middle
        out[e] = low
