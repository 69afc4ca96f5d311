"""The k nearest neighbors, exact although most distances come from a rounded Gram matrix."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from lmms_topoprune.topology.bits import kernel

FLOOR = 1e-30  # products that vanish in float32; the longest squared length is above 1e-20


@kernel("void(float32[:, ::1], float64, int64, float64[:, ::1], int8[:, ::1])")
def surely_nearest(gram, slack, k, heap, verdict):
    """Sort pairs by squared distances known up to slack * (|a|^2 + |b|^2) + FLOOR.

    Args:
        gram: (N, N) inner products; its diagonal holds the squared lengths.
        heap: (2, k) scratch space.
        verdict: (N, N) filled with 1 for a pair (i, j) where j is one of i's k nearest for sure, 0 where
            it is not, 2 where only exact distances can tell.
    """
    n = len(gram)
    for i in range(n):
        for side in range(2):
            for r in range(k):
                heap[side, r] = 1e300
        for j in range(n):
            if j == i:
                continue
            size = float(gram[i, i]) + float(gram[j, j])
            distance = size - 2.0 * float(gram[i, j])
            for side in range(2):
                doubt = slack * size + FLOOR
                value = distance - doubt if side == 0 else distance + doubt
                r = k - 1
                if value < heap[side, r]:
                    while r > 0 and heap[side, r - 1] > value:
                        heap[side, r] = heap[side, r - 1]
                        r -= 1
                    heap[side, r] = value
        for j in range(n):
            size = float(gram[i, i]) + float(gram[j, j])
            distance = size - 2.0 * float(gram[i, j])
            doubt = slack * size + FLOOR
            if j == i or distance - doubt > heap[1, k - 1]:
                verdict[i, j] = 0
            elif distance + doubt < heap[0, k - 1]:
                verdict[i, j] = 1
            else:
                verdict[i, j] = 2
