"""How the kernels are compiled, and where the results are kept.

numba writes machine code beside the package, to the user's cache folder if that is read-only (or to
NUMBA_CACHE_DIR where it is set), and nowhere if none can be written: then each process compiles anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

Kernel = Callable[..., Any]


def kernel(signature: str | None = None, *, any_order: bool = False) -> Callable[[Kernel], Kernel]:
    """Compile for a signature when the module is imported, or for each kind of arguments when first called.

    Kernels run without Python's lock. `any_order` lets sums be added in any order, which is quicker; the
    order then depends on the processor alone.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}
    options["fastmath"] = {"reassoc", "contract"} if any_order else False

    def compiled(function: Kernel) -> Kernel:
        try:
            return njit(signature, cache=True, **options)(function)
        except RuntimeError:  # no folder to write to
            return njit(signature, **options)(function)

    return compiled
