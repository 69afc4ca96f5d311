"""H0 and H1 of a flag complex: a spanning forest, generating edges, and the class of every edge.

Vertices are added one by one, the one with most earlier neighbors next. An edge of the forest has class
0. A new vertex v is joined to its lower link: the first edge into each connected part of the link is a
forest edge or a new generator, the link's own edges determine the others (a triangle sums to 0), and what
they determine twice is a relation that removes a generator. The cost is a few word operations a triangle.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmms_topoprune.topology.bits import ONE, ZERO, add, kernel, lowest

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]


@dataclass(frozen=True)
class EdgeClasses:
    """Homology of one flag complex with N vertices.

    Attributes:
        order: (N,) vertices as they were added.
        parent: (N,) the vertex each one was joined to, -1 for the first of its component.
        ends: (64 * words, 2) the edge that generates a slot, (-1, -1) for an empty slot.
        edge: (N, N) int32, an edge's row in labels, -1 for no edge.
        labels: (edges, words) classes over GF(2), one bit a slot.
    """

    order: Ints
    parent: Ints
    ends: Ints
    edge: NDArray[np.int32]
    labels: Words

    @property
    def live(self) -> NDArray[np.bool_]:
        """(64 * words,): the slots that form the basis of H1."""
        return self.ends[:, 0] >= 0

    @property
    def part(self) -> Ints:
        """(N,): index of each vertex's component."""
        part = np.empty(len(self.order), dtype=np.int64)
        part[self.order] = (
            np.cumsum(self.parent[self.order] < 0) - 1
        )  # components are added one after the other
        return part

    @classmethod
    def of(cls, graph: NDArray[np.bool_], words: int = 2) -> EdgeClasses:
        """For graph (N, N), symmetric, False on the diagonal; `words` is a first guess."""
        n = len(graph)
        tails, near = map(np.ascontiguousarray, np.nonzero(graph))
        start = np.searchsorted(tails, np.arange(n + 1))
        while True:
            edge = np.full((n, n), -1, dtype=np.int32)
            labels = np.zeros((len(near) // 2 + 1, words), dtype=np.uint64)
            ends = np.full((64 * words, 2), -1, dtype=np.int64)
            work = np.zeros((6, n), dtype=np.int64)
            if _fill(start, near, edge, labels, ends, work):
                return cls(work[0], work[1], ends, edge, labels)
            words *= 2


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


@kernel(
    "int64(int64, int64, int64, int32[:, ::1], uint64[:, ::1], int64[:, ::1], "
    "int64[::1], int64[::1], int64[::1])"
)
def _spread(v, m, edges, edge, labels, ends, link, stack, seen):
    """Label the edges from v into one connected part of its link; the new number of edges."""
    words = labels.shape[1]
    height = 1
    while height > 0:
        height -= 1
        x = stack[height]
        for j in range(m):
            y = link[j]
            a = edge[x, y]
            if a < 0:
                continue
            if seen[y] == 0:
                edge[v, y] = edge[y, v] = edges
                add(labels, edges, labels, a, 0, words)
                add(labels, edges, labels, edge[v, x], 0, words)
                edges += 1
                seen[y], stack[height] = 1, y
                height += 1
            elif seen[y] == 2:
                # The first row without an edge is zero and serves as the relation.
                differs = ZERO
                for w in range(words):
                    differs |= labels[a, w] ^ labels[edge[v, x], w] ^ labels[edge[v, y], w]
                if differs != ZERO:
                    add(labels, edges, labels, a, 0, words)
                    add(labels, edges, labels, edge[v, x], 0, words)
                    add(labels, edges, labels, edge[v, y], 0, words)
                    _remove(labels, edges, ends)
        seen[x] = 2
    return edges


@kernel("boolean(int64[::1], int64[::1], int32[:, ::1], uint64[:, ::1], int64[:, ::1], int64[:, ::1])")
def _fill(start, near, edge, labels, ends, work):
    """Fill edge, labels, ends, work[0] = order and work[1] = parent; False if there are too few slots."""
    order, parent, links, link, stack, seen = work[0], work[1], work[2], work[3], work[4], work[5]
    n = len(order)
    edges = 0
    for step in range(n):
        v = 0
        for u in range(n):
            if links[u] > links[v]:
                v = u
        if links[v] < 0:  # v = 0 was added: take the first vertex that was not
            while links[v] < 0:
                v += 1
        order[step], parent[v] = v, -1
        links[v] = -1
        m = 0
        for i in range(start[v], start[v + 1]):
            u = near[i]
            if links[u] < 0:
                link[m], seen[u] = u, 0
                m += 1
            else:
                links[u] += 1
        for i in range(m):
            root = link[i]
            if seen[root] != 0:
                continue
            if parent[v] < 0:
                parent[v] = root
            else:
                slot = 0
                while slot < len(ends) and ends[slot, 0] >= 0:
                    slot += 1
                if slot == len(ends):
                    return False
                ends[slot, 0], ends[slot, 1] = v, root
                labels[edges, slot // 64] = ONE << np.uint64(slot % 64)
            edge[v, root] = edge[root, v] = edges
            edges += 1
            seen[root], stack[0] = 1, root
            edges = _spread(v, m, edges, edge, labels, ends, link, stack, seen)
    return True


def loops(inner: EdgeClasses, outer: EdgeClasses) -> Words:
    """(loops, words): the classes in the outer complex of the loops that generate H1 of the inner one."""
    up = np.where(inner.parent < 0, np.arange(len(inner.parent)), inner.parent)
    potential = outer.labels[outer.edge[np.arange(len(up)), up]]  # of the edge to the parent
    potential[inner.parent < 0] = 0
    while not np.array_equal(up, up[up]):  # doubles the length of the summed paths until all end at a root
        potential ^= potential[up]
        up = up[up]
    u, v = inner.ends[inner.live].T
    return potential[u] ^ potential[v] ^ outer.labels[outer.edge[u, v]]


def parts(inner: EdgeClasses, outer: EdgeClasses) -> Words:
    """(components, words): the outer component that holds each component of the inner complex."""
    place = outer.part[inner.order[inner.parent[inner.order] < 0]]
    out = np.zeros((len(place), len(part_slots(outer)) // 64), dtype=np.uint64)
    out[np.arange(len(place)), place // 64] = np.uint64(1) << (place % 64).astype(np.uint64)
    return out


def part_slots(classes: EdgeClasses) -> NDArray[np.bool_]:
    """(64 * words,): the slots that stand for components."""
    count = int((classes.parent < 0).sum())
    return np.arange(-(-count // 64) * 64) < count
