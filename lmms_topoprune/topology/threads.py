"""How many threads the computations use."""

from __future__ import annotations

import os

MOST = 8  # beyond it memory traffic decides


def thread_count() -> int:
    """OMP_NUM_THREADS if it is set to a number, else the processors this process may use; at most 8."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        return min(int(asked), MOST)
    try:
        return min(len(os.sched_getaffinity(0)), MOST)
    except AttributeError:  # not on Linux
        return min(os.cpu_count() or 1, MOST)
