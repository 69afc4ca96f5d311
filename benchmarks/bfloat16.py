"""How much faster a CPU multiplies bfloat16 matrices than float32 ones, which decides what dtype=auto takes.

    OMP_NUM_THREADS=1 python benchmarks/bfloat16.py

Processor time of (512, d) @ (d, d), the fastest of nine rounds, both types in turn.
"""

from __future__ import annotations

import time
from itertools import product

import torch

ROWS, ROUNDS, WORK = 512, 9, 4e9
TYPES = (torch.float32, torch.bfloat16)


def seconds(dtype: torch.dtype, width: int) -> float:
    """Processor seconds of one product."""
    rows, weights = torch.randn(ROWS, width).to(dtype), torch.randn(width, width).to(dtype)
    count = max(1, int(WORK / (2 * ROWS * width**2)))
    start = time.process_time()
    for _ in range(count):
        torch.matmul(rows, weights)
    return (time.process_time() - start) / count


def main() -> None:
    known = {name for name, value in torch.cpu.get_capabilities().items() if value is True}
    print("bfloat16 units:", ", ".join(sorted(known & {"avx512_bf16", "amx_bf16"})) or "none")
    print("| width | float32 over bfloat16 |\n|---:|---:|")
    for width in (256, 576, 1024, 2048, 4096):
        fastest = dict.fromkeys(TYPES, float("inf"))
        for _, dtype in product(range(ROUNDS), TYPES):
            fastest[dtype] = min(fastest[dtype], seconds(dtype, width))
        print(f"| {width} | {fastest[torch.float32] / fastest[torch.bfloat16]:.1f} |")


if __name__ == "__main__":
    main()
