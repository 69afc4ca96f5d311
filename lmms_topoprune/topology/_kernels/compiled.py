"""How the kernels are compiled, and where the results are kept.

numba writes machine code beside the package, to the user's cache folder if that is read-only (or to
NUMBA_CACHE_DIR where it is set), and nowhere if none can be written: then each process compiles anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

Kernel = Callable[..., Any]


def kernel(*signatures: str, any_order: bool = False) -> Callable[[Kernel], Kernel]:
    """Compile for these signatures when the module is imported, without Python's lock.

    Given signatures halve the time to compile. `any_order` lets sums be added in any order, which is
    quicker, and is for numbers whose error is bounded anyway.
    """
    options: dict[str, Any] = {
        "nogil": True,
        "error_model": "numpy",
        "fastmath": {"reassoc", "contract"} if any_order else False,
    }
    wanted = list(signatures) if len(signatures) > 1 else signatures[0]

    def compiled(function: Kernel) -> Kernel:
        try:
            return njit(wanted, cache=True, **options)(function)
        except RuntimeError:  # no folder to write to
            return njit(wanted, **options)(function)

    return compiled
