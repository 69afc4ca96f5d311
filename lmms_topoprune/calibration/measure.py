"""Seconds and peak memory of a stage."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch


@contextmanager
def measured(stages: dict[str, dict[str, float]], name: str) -> Iterator[None]:
    """Add {"seconds", "peak_bytes"} of what happens inside under `name`.

    The peak is the accelerator's where there is one, else that of the process's resident memory.
    """
    _reset_peak()
    started = time.perf_counter()
    try:
        yield
    finally:
        stages[name] = {"seconds": time.perf_counter() - started, "peak_bytes": _peak()}


def _reset_peak() -> None:
    if torch.cuda.is_available():
        for device in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            return  # a locked-down container; the peak then is that of the whole run


def _peak() -> float:
    if torch.cuda.is_available():
        return float(sum(torch.cuda.max_memory_allocated(d) for d in range(torch.cuda.device_count())))
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text()
        return 1024.0 * int(status.split("VmHWM:")[1].split()[0])
    if sys.platform == "win32":
        return 0.0
    import resource

    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # bytes on macOS
