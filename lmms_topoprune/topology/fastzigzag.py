"""Zigzag persistence of any simplicial zigzag by one reduction over GF(2).

Dey and Hou, "Fast Computation of Zigzag Persistence", ESA 2022 (arXiv 2204.11080). A cell is a pair of a
simplex and a maximal run [a, b] of consecutive states that hold it. A cone point w comes first, then
the cells in the order they appear, then the cones of the cells in the order the runs end, last first.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lmms_topoprune.topology._kernels.column_reduction import reduce_columns
from lmms_topoprune.topology.complexes import Cells

Ints = NDArray[np.int64]


def reduce_cells(cells: Cells) -> Ints:
    """(bars, 3) dimension, birth, death; the top dimension of the cells is cut off and has no meaning."""
    n = len(cells.dimension)
    if n == 0:
        return np.zeros((0, 3), dtype=np.int64)
    order = np.lexsort((np.arange(n), cells.dimension, -cells.last))
    place = np.empty(n, dtype=np.int64)  # column of a cell's cone
    place[order] = np.arange(n) + n + 1
    dimension = np.concatenate([[0], cells.dimension, cells.dimension[order] + 1])
    low = reduce_columns(cells.facets, order, place, dimension)
    killer = np.flatnonzero(low >= 0)
    return _bars(cells, order, low[killer], killer)


def matrix_of(cells: Cells) -> tuple[list[list[int]], Callable[[Ints], Ints]]:
    """The boundary matrix as sorted columns, and what turns its reduced columns' lowest rows into bars."""
    n = len(cells.dimension)
    order = np.lexsort((np.arange(n), cells.dimension, -cells.last))
    place = np.empty(n, dtype=np.int64)
    place[order] = np.arange(n) + n + 1
    facets = [[f for f in row if f >= 0] for row in cells.facets.tolist()]
    columns: list[list[int]] = [[], *([f + 1 for f in sorted(row)] for row in facets)]
    for cell in order.tolist():
        columns.append(sorted([cell + 1, *(place[facets[cell]].tolist() or [0])]))

    def bars(low: Ints) -> Ints:
        killer = np.flatnonzero(low >= 0)
        return _bars(cells, order, low[killer], killer)

    return columns, bars


def _bars(cells: Cells, order: Ints, creator: Ints, killer: Ints) -> Ints:
    n = len(order)
    born_by_cell, killed_by_cell = creator <= n, killer <= n
    x = np.where(born_by_cell, creator - 1, order[np.maximum(creator - n - 1, 0)])
    y = np.where(killed_by_cell, killer - 1, order[np.maximum(killer - n - 1, 0)])
    added, deleted = 2 * cells.first, 2 * cells.last + 1
    start = np.where(born_by_cell, added[x], deleted[y])
    end = np.where(born_by_cell, np.where(killed_by_cell, added[y], deleted[y]), deleted[x])
    turned = (
        start > end
    )  # a cell that appears after the cone's cell has gone: an open bar, one dimension lower
    bars = np.stack([cells.dimension[x] - turned, np.minimum(start, end), np.maximum(start, end)], axis=1)
    return bars[start != end]
