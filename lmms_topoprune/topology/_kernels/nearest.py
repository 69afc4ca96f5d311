"""The k nearest neighbors in order, exact although most distances come from a rounded Gram matrix."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import numpy as np

from lmms_topoprune.topology._kernels.compiled import kernel

TINY = 1e-280  # squares below have lost digits
ENLARGED = 2.0**450
ROUNDED = 1e-12  # relative error of distances in float64


def _both(signature: str) -> tuple[str, str]:
    """For points of either precision."""
    return signature.replace("real", "float32"), signature.replace("real", "float64")


@kernel(
    *_both("void(real[:, ::1], float64[::1], float64[::1], float32[:, ::1], float64[::1])"), any_order=True
)
def center(points, weight, middle, centered, squares):
    """centered = weight * points - middle, rounded, and its squared lengths."""
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


@kernel(
    *_both("float64(real[:, ::1], float64[::1], int64, real[:, ::1], float64[::1], int64, float64)"),
    any_order=True,
)
def _square(here, weight, i, there, other, j, factor):
    """Squared distance, times factor^2; the order of the sum depends on the processor alone."""
    a, b = weight[i] * factor, other[j] * factor
    total = 0.0
    for c in range(here.shape[1]):
        difference = np.float64(here[i, c]) * a - np.float64(there[j, c]) * b
        total += difference * difference
    return total


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
    lanes[:] = values[:width]
    for begin in range(width, len(values) - width + 1, width):
        part = values[begin : begin + width]
        for t in range(width):
            lanes[t] = min(lanes[t], part[t])
    smallest[:] = np.inf
    for value in lanes:
        if value < smallest[k - 1]:
            r = k - 1
            while r > 0 and smallest[r - 1] > value:
                smallest[r] = smallest[r - 1]
                r -= 1
            smallest[r] = value
    return smallest[k - 1]


@kernel(
    "Tuple((int64[::1], int64[::1], float64[::1], float64[::1]))(float32[:, ::1], float64, float64[:, ::1], "
    "float64[:, ::1], boolean, int64, int64[:, ::1], float64[:, ::1], float64[:, ::1], int64)",
    any_order=True,
)
def candidates(gram, slack, rows, columns, own, offset, known, known_square, known_error, k):
    """All points that may be among the k nearest of each row, sorted by approximate squared distance.

    The squared distance of i and j is rows[0, i] + columns[0, j] - 2 gram[i, j], wrong by at most
    slack * rows[1, i] * columns[1, j] + rows[2, i] + columns[2, j].

    Args:
        own: whether rows and columns are the same points, none of which is its own neighbor.
        offset: number of the first column's point.
        known, known_square, known_error: (N, 0 or k) neighbors found elsewhere.

    Returns:
        start (N + 1,) of each row's share, and point, squared distance and error of the candidates.
    """
    n, m = gram.shape
    seeds = known.shape[1]
    start = np.zeros(n + 1, np.int64)
    room = 2 * n * k + 64
    index, square, error = np.empty(room, np.int64), np.empty(room), np.empty(room)
    value, least, most = np.empty(m), np.empty(m), np.empty(m)
    lanes, smallest = np.empty(min(m, max(64, 2 * k))), np.empty(k)
    used = 0
    for i in range(n):
        line, reach = gram[i], slack * rows[1, i]
        for j in range(m):
            distance, doubt = columns[0, j] - 2.0 * np.float64(line[j]), reach * columns[1, j] + columns[2, j]
            value[j], least[j], most[j] = distance, distance - doubt, distance + doubt
        if own:
            least[i] = most[i] = np.inf
        base, blur = rows[0, i], rows[2, i]
        limit = np.inf
        if seeds > 0:
            limit = known_square[i, 0] + known_error[i, 0]
            for r in range(seeds):
                limit = max(limit, known_square[i, r] + known_error[i, r])
        if m >= k + own:
            limit = min(limit, _bound(most, lanes, smallest) + base + blur)
        if used + m + seeds > room:
            room = 2 * room + m + seeds
            wider, further, rougher = np.empty(room, np.int64), np.empty(room), np.empty(room)
            wider[:used], further[:used], rougher[:used] = index[:used], square[:used], error[:used]
            index, square, error = wider, further, rougher
        for r in range(seeds):
            if known_square[i, r] - known_error[i, r] <= limit:
                index[used], square[used], error[used] = known[i, r], known_square[i, r], known_error[i, r]
                used += 1
        farthest = limit + blur - base
        for j in range(m):
            if least[j] <= farthest:
                index[used], square[used], error[used] = (
                    offset + j,
                    base + value[j],
                    value[j] - least[j] + blur,
                )
                used += 1
        start[i + 1] = used
        _sort(square, error, index, start[i], used)
    return start, index, square, error


@kernel(
    *_both(
        "void(int64[::1], int64[::1], float64[::1], float64[::1], real[:, ::1], float64[::1], int64, "
        "real[:, ::1], float64[::1], int64, float64, int32[:, ::1], float64[:, ::1], float64[:, ::1])"
    )
)
def in_order(
    start, index, square, error, here, weight, first, there, other, second, factor, near, squares, errors
):
    """The k nearest of the candidates, nearest first, equal distances by number; overwrites candidates.

    Where errors leave the order open, distances are computed anew from the points.

    Args:
        here, weight, first: the rows' points, a factor for each, and the number of the first.
        there, other, second: the same for the candidates that are not among them.
        near, squares, errors: (N, k) to fill.
    """
    n, k = near.shape
    for i in range(n):
        low, stop = start[i], start[i + 1]
        while low < min(start[i] + k, stop):
            high, reach = low + 1, square[low] + error[low]
            while high < stop and square[high] - error[high] <= reach:
                reach = max(reach, square[high] + error[high])
                high += 1
            if high > low + 1:
                for c in range(low, high):
                    j, error[c] = index[c], 0.0
                    if first <= j < first + n:
                        square[c] = _square(here, weight, i, here, weight, j - first, factor)
                    else:
                        square[c] = _square(here, weight, i, there, other, j - second, factor)
                    if square[c] < TINY:
                        square[c] = 0.0
                        if first <= j < first + n:
                            error[c] = _square(here, weight, i, here, weight, j - first, factor * ENLARGED)
                        else:
                            error[c] = _square(here, weight, i, there, other, j - second, factor * ENLARGED)
                _sort(square, error, index, low, high)
                for c in range(low, high):
                    error[c] = ROUNDED * square[c] + TINY
            low = high
        for r in range(k):
            c = start[i] + r
            near[i, r], squares[i, r], errors[i, r] = index[c], square[c], error[c]
