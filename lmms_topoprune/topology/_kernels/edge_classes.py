"""The class of every edge of a flag complex in its first homology.

Vertices are added one by one, the one with most earlier neighbors next. An edge of the forest has class
0. A new vertex v is joined to its lower link: the first edge into each connected part of the link is a
forest edge or a new generator, the link's own edges determine the others (a triangle sums to 0), and what
they determine twice is a relation that removes a generator. The cost is a few word operations a triangle.
"""

from __future__ import annotations

import numpy as np

from lmms_topoprune.topology._kernels.column_reduction import ONE, ZERO, add, lowest
from lmms_topoprune.topology._kernels.compiled import kernel

# mypy: disable-error-code="no-untyped-def"


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


# mypy: disable-error-code="no-untyped-def"


@kernel("void(uint64[:, ::1], int64, int64[:, ::1])")
def _remove(labels, relation, ends):
    """Remove a generator by the relation in that row, which becomes zero again."""
    words = labels.shape[1]
    gone = lowest(labels, relation, 0, words)
    ends[gone, 0] = ends[gone, 1] = -1
    word, bit = gone // 64, ONE << np.uint64(gone % 64)
    for e in range(relation):
        if labels[e, word] & bit:
            add(labels, e, labels, relation, 0, words)
    add(labels, relation, labels, relation, 0, words)


@kernel("int64(uint64[:, ::1], int64, int64, int64)")
def _sum(labels, a, b, rows):
    """A row that holds the sum of rows a and b: an old one where that is easy to see, else row `rows`."""
    if a == b:
        return 0
    if a == 0 or b == 0:
        return a + b
    for w in range(labels.shape[1]):
        labels[rows, w] = labels[a, w] ^ labels[b, w]
    return rows


@kernel(
    "int64(int64, int64, int64[::1], int64[::1], int64[::1], int32[::1], uint64[:, ::1], int64[:, ::1], "
    "int64[:, ::1])"
)
def _spread(v, rows, start, near, twin, row, labels, ends, work):
    """Label the edges from v into one connected part of its link; the new number of rows in use.

    Edges of one class mostly share a row, so that most triangles are seen to sum to 0 without their words.
    """
    link, stack, seen, place = work[4], work[5], work[6], work[7]
    words = labels.shape[1]
    height = 1
    while height > 0:
        height -= 1
        x = stack[height]
        for q in range(start[x], start[x + 1]):
            y = near[q]
            if link[y] != v:
                continue
            a, b = row[q], row[place[x]]
            if seen[y] == 0:
                found = _sum(labels, a, b, rows)
                row[place[y]] = row[twin[place[y]]] = found
                rows = max(rows, found + 1)
                seen[y], stack[height] = 1, y
                height += 1
            elif seen[y] == 2:
                c, differs = row[place[y]], ZERO
                if (a == 0 and b == c) or (b == 0 and a == c) or (c == 0 and a == b):
                    continue
                for w in range(words):
                    differs |= labels[a, w] ^ labels[b, w] ^ labels[c, w]
                if differs != ZERO:
                    # The first row that is not in use is zero and serves as the relation.
                    for w in range(words):
                        labels[rows, w] = labels[a, w] ^ labels[b, w] ^ labels[c, w]
                    _remove(labels, rows, ends)
        seen[x] = 2
    return rows


@kernel("void(int64[::1], int64[::1], int64[::1], int64[::1])")
def _reverse(start, near, twin, filled):
    """twin (2E,): where each edge's other direction is."""
    for v in range(len(start) - 1):
        filled[v] = start[v]
    for p in range(len(near)):
        twin[p] = filled[near[p]]
        filled[near[p]] += 1


@kernel(
    "boolean(int64[::1], int64[::1], int32[::1], uint64[:, ::1], int64[:, ::1], int64[:, ::1], int64[:, ::1])"
)
def fill(start, near, row, labels, ends, work, queue):
    """Fill row, labels, ends, work[0] = order and work[1] = parent; False if there are too few slots.

    Args:
        start, near: (N + 1,), (2E,) each vertex's neighbors, ascending.
        row: (2E,) becomes the edge's row in `labels`; row 0 is the class 0.
        labels: (E + 2, words) zeros; ends: (64 * words, 2) -1 each; work: (8, N + 1) zeros.
        queue: (3, 2E + N) scratch space.
    """
    order, parent, links, top = work[0], work[1], work[2], work[3]
    link, stack, seen, place = work[4], work[5], work[6], work[7]
    twin, entry, below = queue[0], queue[1], queue[2]
    n, entries = len(start) - 1, 0
    _reverse(start, near, twin, stack)
    # Vertices by their number of earlier neighbors: stacks of (vertex, older entry), stale entries skipped.
    for u in range(n, -1, -1):
        top[u], link[u] = -1, -1
    for u in range(n - 1, -1, -1):
        entry[entries], below[entries], top[0] = u, top[0], entries
        entries += 1
    best, rows = 0, 1
    for step in range(n):
        v = -1
        while v < 0:
            while top[best] < 0:
                best -= 1
            v = entry[top[best]]
            top[best] = below[top[best]]
            if links[v] != best:
                v = -1
        order[step], parent[v] = v, -1
        links[v] = -1
        for p in range(start[v], start[v + 1]):
            u = near[p]
            if links[u] < 0:
                link[u], seen[u], place[u] = v, 0, p
            else:
                links[u] += 1
                entry[entries], below[entries], top[links[u]] = u, top[links[u]], entries
                entries += 1
                best = max(best, links[u])
        for p in range(start[v], start[v + 1]):
            root = near[p]
            if link[root] != v or seen[root] != 0:
                continue
            row[p] = row[twin[p]] = 0
            if parent[v] < 0:
                parent[v] = root
            else:
                slot = 0
                while slot < len(ends) and ends[slot, 0] >= 0:
                    slot += 1
                if slot == len(ends):
                    return False
                ends[slot, 0], ends[slot, 1] = v, root
                labels[rows, slot // 64] = ONE << np.uint64(slot % 64)
                row[p] = row[twin[p]] = rows
                rows += 1
            seen[root], stack[0] = 1, root
            rows = _spread(v, rows, start, near, twin, row, labels, ends, work)
    return True
