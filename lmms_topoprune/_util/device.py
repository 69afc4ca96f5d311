"""Which device and dtype a model runs in when the user does not say."""

from __future__ import annotations

import torch

from lmms_topoprune.errors import OptionError, shown, unknown, whole_number

DTYPES = ("auto", "float32", "float16", "bfloat16")
WIDE = 1024
"""Width from which on products of bfloat16 matrices pay on a CPU that multiplies them."""


def find_device(asked: str | None = None) -> str:
    """The device asked for, or the first of cuda (one per local process), mps and cpu that is there.

    Raises:
        OptionError: not the name of a device, or this machine has no such device.
    """
    if asked is None:
        return _best()
    check_device("device", asked)
    return str(asked)


def check_device(name: str, asked: object, others: tuple[str, ...] = ()) -> None:
    """Refuse a device that is none or that this machine lacks.

    Raises:
        OptionError: names the argument `name`, what was asked for, and what is there or in `others`.
    """
    try:
        if not isinstance(asked, str) or torch.device(asked).type == "meta":
            raise RuntimeError
    except RuntimeError:
        raise unknown(name, asked, (*others, "cpu", "cuda", "cuda:0", "mps")) from None
    try:
        torch.empty(0, device=asked)
    except Exception:  # each backend complains in its own way
        there = ", ".join((*others, _best()))
        raise OptionError(f"{name} is {shown(asked)}, which this machine lacks; allowed: {there}") from None


def _best() -> str:
    if torch.cuda.is_available():
        several = whole_number("WORLD_SIZE", 1) > 1
        return f"cuda:{whole_number('LOCAL_RANK')}" if several else "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def find_dtype(asked: str | torch.dtype | None, device: str) -> str | torch.dtype | None:
    """What the user says, else float32 on a CPU and the wrapped class's own choice (None) elsewhere.

    Raises:
        OptionError: not the name of a floating-point dtype.
    """
    if asked is None:
        return "float32" if device.startswith("cpu") else None
    if isinstance(asked, torch.dtype) and asked.is_floating_point:
        return asked
    if asked not in DTYPES:
        raise unknown("dtype", asked, DTYPES)
    return asked


def cpu_dtype(width: int) -> torch.dtype:
    """What `auto` means on a CPU: bfloat16 where it pays, else float32.

    It pays with AVX-512 BF16 or AMX, where a product of wide matrices takes less than half the time
    (benchmarks/bfloat16.py); elsewhere every product converts to float32 and back. Only the processor and the
    width decide, no measurement of the moment, so that runs that are compared on one machine have one type.

    Args:
        width: of the decoder's hidden states.
    """
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.6 has none
    multiplies = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return torch.bfloat16 if multiplies and width >= WIDE else torch.float32
