"""Which device and dtype a model runs in when the user does not say."""

from __future__ import annotations

import torch

from lmms_topoprune.errors import OptionError, shown, unknown, whole_number

DTYPES = ("auto", "float32", "float16", "bfloat16")


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
