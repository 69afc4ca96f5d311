"""The barcode of a zigzag from ranks alone, by linear algebra that shares no code with the package.

For intervals [b, d] of indices, the number of bars over all of [b, d] is the rank of the map from the limit
of the restricted module to its colimit: here the rank, modulo relations, of compatible families.
"""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np


def rank(matrix: np.ndarray) -> int:
    """Rank over GF(2)."""
    rows = [int("".join(map(str, row)), 2) if len(row) else 0 for row in np.asarray(matrix, dtype=int) % 2]
    found = 0
    while rows:
        row = rows.pop()
        if row:
            found += 1
            low = row & -row
            rows = [r ^ row if r & low else r for r in rows]
    return found


def kernel(matrix: np.ndarray) -> np.ndarray:
    """(vectors, columns): a basis of the null space over GF(2)."""
    rows, columns = matrix.shape
    work = np.concatenate([matrix.T % 2, np.eye(columns, dtype=int)], axis=1)
    pivot = 0
    for c in range(rows):
        hits = [r for r in range(pivot, columns) if work[r, c]]
        if hits:
            work[[pivot, hits[0]]] = work[[hits[0], pivot]]
            for r in range(columns):
                if r != pivot and work[r, c]:
                    work[r] ^= work[pivot]
            pivot += 1
    return work[pivot:, rows:]


def closed(complex_) -> set[tuple[int, ...]]:
    return {f for s in complex_ for n in range(1, len(s) + 1) for f in combinations(sorted(set(s)), n)}


def boundary(low: list, high: list) -> np.ndarray:
    place = {s: i for i, s in enumerate(low)}
    matrix = np.zeros((len(low), len(high)), dtype=int)
    for j, s in enumerate(high):
        for face in combinations(s, len(s) - 1):
            if face:
                matrix[place[face], j] = 1
    return matrix


def bars(complexes, p: int) -> list[tuple[int, int, int]]:
    """Sorted (p, birth, death) of K_0 > K_0 n K_1 < K_1 > ..."""
    states = [closed(c) for c in complexes]
    line = [states[0]]
    for before, after in pairwise(states):
        line += [before & after, after]
    every = sorted({s for c in line for s in c if len(s) == p + 1})
    counts = {
        (b, d): _bars_over(line[b : d + 1], every, p, even=b % 2 == 0)
        for b in range(len(line))
        for d in range(b, len(line))
    }
    out = []
    for b, d in counts:
        n = (
            counts[b, d]
            - counts.get((b - 1, d), 0)
            - counts.get((b, d + 1), 0)
            + counts.get((b - 1, d + 1), 0)
        )
        out += [(p, b, d + 1)] * n
    return sorted(out)


def _bars_over(line, every, p, even) -> int:
    """Rank of limit -> colimit over these complexes.

    A family is a cycle at each index; across an arrow the two differ by a boundary of the larger complex.
    Its image is the class of its first member, modulo what the arrows identify.
    """
    size = len(every)
    if size == 0:
        return 0
    place = {s: i for i, s in enumerate(every)}
    cycles, bounds = [], []
    for complex_ in line:
        mine = sorted(s for s in complex_ if len(s) == p + 1)
        lower = sorted(s for s in complex_ if len(s) == p)
        upper = sorted(s for s in complex_ if len(s) == p + 2)
        inside = np.zeros((len(mine), size), dtype=int)
        for i, s in enumerate(mine):
            inside[i, place[s]] = 1
        down = boundary(lower, mine) if p else np.zeros((0, len(mine)), dtype=int)
        cycles.append(kernel(down) @ inside % 2 if len(mine) else np.zeros((0, size), dtype=int))
        bounds.append(boundary(mine, upper).T @ inside % 2 if len(mine) else np.zeros((0, size), dtype=int))
    # Unknowns: coefficients of cycles at every index and of boundaries at every arrow's large end.
    # An arrow goes from the intersection (odd index) to the state.
    arrows = [(i + 1, i) if (i % 2 == 0) == even else (i, i + 1) for i in range(len(line) - 1)]
    width = [len(c) for c in cycles] + [len(bounds[big]) for _, big in arrows]
    start = np.concatenate([[0], np.cumsum(width)]).astype(int)
    equations = np.zeros((size * len(arrows), int(start[-1])), dtype=int)
    for a, (small, big) in enumerate(arrows):
        rows = slice(size * a, size * (a + 1))
        equations[rows, start[small] : start[small + 1]] = cycles[small].T
        equations[rows, start[big] : start[big + 1]] = cycles[big].T
        n = len(line) + a
        equations[rows, start[n] : start[n + 1]] = bounds[big].T
    families = kernel(equations) if equations.size or start[-1] else np.zeros((0, int(start[-1])), dtype=int)
    # Colimit: direct sum of cycles modulo boundaries and x_small ~ x_large; take the family's first member.
    blocks = len(line)
    relations = []
    for i in range(blocks):
        for row in bounds[i]:
            relations.append(_placed(row, i, blocks, size))
    for small, big in arrows:
        for row in cycles[small]:
            relations.append((_placed(row, small, blocks, size) + _placed(row, big, blocks, size)) % 2)
    members = [_placed(f[: start[1]] @ cycles[0] % 2, 0, blocks, size) for f in families]
    base = np.array(relations, dtype=int).reshape(-1, blocks * size)
    return rank(np.concatenate([base, np.array(members, dtype=int).reshape(-1, blocks * size)])) - rank(base)


def _placed(row, i, blocks, size) -> np.ndarray:
    out = np.zeros(blocks * size, dtype=int)
    out[i * size : (i + 1) * size] = row
    return out
