"""Seconds and peak memory of each stage of a run."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

Stages = dict[str, dict[str, float]]


@contextmanager
def measured(stages: Stages, name: str) -> Iterator[None]:
    """Add this block's seconds and peak bytes to stages[name]; a stage run twice sums up and keeps its peak.

    Peak bytes are the accelerator's if there is one, else the process's resident memory.
    """
    _reset_peak()
    start = time.perf_counter()
    try:
        yield
    finally:
        stage = stages.setdefault(name, {"seconds": 0.0, "peak_bytes": 0})
        stage["seconds"] = round(stage["seconds"] + time.perf_counter() - start, 3)
        stage["peak_bytes"] = max(stage["peak_bytes"], peak_bytes())


def peak_bytes() -> int:
    """The peak since the last reset; where the system cannot reset it, since the process began."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        import resource  # not there on Windows

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _reset_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
