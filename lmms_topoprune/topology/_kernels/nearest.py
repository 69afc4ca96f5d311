"""The k nearest neighbors in order, exact although most distances come from a rounded Gram matrix."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import numpy as np

from lmms_topoprune.topology._kernels.compiled import kernel

TINY = 1e-280  # squares below have lost digits
ENLARGED = 2.0**450
ROUNDED = 1e-12  # relative error of distances in float64


@kernel(any_order=True)
def center(points, weight, middle, centered, squares):
    """centered = weight * points - middle in float32, and its squared lengths; points of any float."""
    for i in range(len(points)):
        total = 0.0
        for c in range(points.shape[1]):
            value = np.float32(np.float64(points[i, c]) * weight[i] - middle[c])
            centered[i, c] = value
            total += np.float64(value) * np.float64(value)
        squares[i] = total


@kernel("float64[::1](float32[:, ::1], float64[::1])", any_order=True)
def project(centered, direction):
    """(N,): inner products with one vector."""
    out = np.empty(len(centered))
    for i in range(len(centered)):
        total = 0.0
        for c in range(len(direction)):
            total += np.float64(centered[i, c]) * direction[c]
        out[i] = total
    return out


@kernel("void(float64[::1], float64[::1], int64[::1], int64, int64)")
def _sort(first, second, index, low, high):
    """Sort three columns between two rows by (first, second, index): Shell's sort."""
    gap = 1
    while 3 * gap < high - low:
        gap = 3 * gap + 1
    while gap > 0:
        for i in range(low + gap, high):
            a, b, c = first[i], second[i], index[i]
            j = i - gap
            while j >= low and (
                first[j] > a or (first[j] == a and (second[j] > b or (second[j] == b and index[j] > c)))
            ):
                first[j + gap], second[j + gap], index[j + gap] = first[j], second[j], index[j]
                j -= gap
            first[j + gap], second[j + gap], index[j + gap] = a, b, c
        gap //= 3


@kernel("float64(float64[::1], float64[::1], float64[::1])", any_order=True)
def _bound(values, lanes, smallest):
    """A number that at least k of the values do not exceed; `smallest` (k,) and `lanes` are scratch space.

    The k-th smallest of the minima of len(lanes) >= k disjoint sets of values, which is close to the k-th
    smallest value and quicker to find.
    """
    width, k = len(lanes), len(smallest)
    for t in range(width):
        lanes[t] = values[t]
    for begin in range(width, len(values) - width + 1, width):
        for t in range(width):
            if values[begin + t] < lanes[t]:
                lanes[t] = values[begin + t]
    for r in range(k):
        smallest[r] = np.inf
    for t in range(width):
        value, r = lanes[t], k
        if value < smallest[k - 1]:
            r = k - 1
            while r > 0 and smallest[r - 1] > value:
                smallest[r] = smallest[r - 1]
                r -= 1
            smallest[r] = value
    return smallest[k - 1]


@kernel(
    "int64(int64, float32[:, ::1], float64, float64[:, ::1], float64[:, ::1], boolean, int64, int64, "
    "float64[:, ::1], float64[::1], float64[::1], float64[::1], float64[::1], int64[::1], int64)",
    any_order=True,
)
def _add_near(
    i, gram, slack, rows, columns, own, offset, k, work, lanes, smallest, square, error, index, used
):  # fmt: skip
    """Add the columns that may be among the k nearest of row i; the new number of candidates.

    work[0, 0] is a bound on the k-th distance that is known already.
    """
    m = gram.shape[1]
    base, reach, blur = rows[0, i], slack * rows[1, i], rows[2, i]
    limit = work[0, 0]
    for j in range(m):
        distance, doubt = columns[0, j] - 2.0 * np.float64(gram[i, j]), reach * columns[1, j] + columns[2, j]
        work[0, j], work[1, j], work[2, j] = distance, distance - doubt, distance + doubt
    if own:
        work[1, i] = work[2, i] = np.inf
    if m >= k + own:
        limit = min(limit, _bound(work[2], lanes, smallest) + base + blur)
    for j in range(m):
        if work[1, j] <= limit + blur - base:
            index[used], square[used] = offset + j, base + work[0, j]
            error[used] = work[0, j] - work[1, j] + blur
            used += 1
    return used


@kernel("void(float64[::1], float64[::1], int64[::1], int64, int64, int64)")
def _mark_doubts(square, error, run, low, high, k):
    """Give those of the sorted candidates whose order is open a common number; 0 where it is sure."""
    first = low
    while low < high:
        end, reach = low + 1, square[low] + error[low]
        while end < high and square[end] - error[end] <= reach:
            reach = max(reach, square[end] + error[end])
            end += 1
        number = low + 1 if end > low + 1 and low < first + k else 0
        for c in range(low, end):
            run[c] = number
        low = end


@kernel(
    "int64(float32[:, ::1], float64, float64[:, ::1], float64[:, ::1], boolean, int64, int64[:, ::1], "
    "float64[:, ::1], float64[:, ::1], int64, float64[:, ::1], float64[::1], float64[::1], int64[::1], "
    "int64[::1], float64[::1], float64[::1], int64[::1])"
)
def candidates(
    gram, slack, rows, columns, own, offset, known, known_square, known_error, k, work, lanes, smallest,
    start, index, square, error, run,
):  # fmt: skip
    """All points that may be among the k nearest of each row, sorted by approximate squared distance.

    The squared distance of i and j is rows[0, i] + columns[0, j] - 2 gram[i, j], wrong by at most
    slack * rows[1, i] * columns[1, j] + rows[2, i] + columns[2, j].

    Args:
        own: whether rows and columns are the same points, none of which is its own neighbor.
        offset: number of the first column's point.
        known, known_square, known_error: (N, 0 or k) neighbors found elsewhere.
        work (3, M), lanes, smallest (k,): scratch space.
        start: (N + 1,) to fill with the beginning of each row's share of the candidates.
        index, square, error, run: (room,) to fill with point, squared distance and its error, and a number
            that is 0 or common to candidates whose order is open.

    Returns:
        The number of rows that had room.
    """
    n, m = gram.shape
    seeds, used = known.shape[1], 0
    start[0] = 0
    for i in range(n):
        if used + m + seeds > len(index):
            return i
        farthest = -np.inf if seeds > 0 else np.inf
        for r in range(seeds):
            farthest = max(farthest, known_square[i, r] + known_error[i, r])
            index[used], square[used], error[used] = known[i, r], known_square[i, r], known_error[i, r]
            used += 1
        work[0, 0] = farthest
        used = _add_near(
            i, gram, slack, rows, columns, own, offset, k, work, lanes, smallest, square, error, index, used
        )
        start[i + 1] = used
        _sort(square, error, index, start[i], used)
        _mark_doubts(square, error, run, start[i], used, k)
    return n


@kernel(any_order=True)
def _square(here, weight, i, there, other, j, factor):
    """Squared distance, times factor^2."""
    a, b = weight[i] * factor, other[j] * factor
    total = 0.0
    for c in range(here.shape[1]):
        difference = np.float64(here[i, c]) * a - np.float64(there[j, c]) * b
        total += difference * difference
    return total


@kernel()
def measure(start, index, square, error, run, points, weight, first, there, other, second, factor):
    """Replace squares by exact ones where the order is open; errors become a second key for the tiniest.

    Args:
        points, weight, first: the rows' points (any float), a factor for each, and the number of the first.
        there, other, second: the same for the candidates that are not among them.
    """
    n = len(points)
    for i in range(n):
        for c in range(start[i], start[i + 1]):
            if run[c] == 0:
                continue
            size = factor
            for enlarged in range(2):
                j = index[c]
                if first <= j < first + n:
                    value = _square(points, weight, i, points, weight, j - first, size)
                else:
                    value = _square(points, weight, i, there, other, j - second, size)
                if enlarged == 1:
                    error[c] = value
                    break
                square[c], error[c] = value, 0.0
                if value >= TINY:
                    break
                square[c], size = 0.0, factor * ENLARGED


@kernel(
    "void(int64[::1], int64[::1], float64[::1], float64[::1], int64[::1], int32[:, ::1], float64[:, ::1], "
    "float64[:, ::1])"
)
def in_order(start, index, square, error, run, near, squares, errors):
    """The k nearest of the measured candidates, nearest first, equal distances by number.

    near, squares, errors (N, k) are filled; the candidates are overwritten.
    """
    n, k = near.shape
    for i in range(n):
        low, stop = start[i], start[i + 1]
        while low < stop and low < start[i] + k:
            high = low + 1
            while run[low] > 0 and high < stop and run[high] == run[low]:
                high += 1
            if run[low] > 0:
                _sort(square, error, index, low, high)
                for c in range(low, high):
                    error[c] = ROUNDED * square[c] + TINY
            low = high
        for r in range(k):
            c = start[i] + r
            near[i, r], squares[i, r], errors[i, r] = index[c], square[c], error[c]
