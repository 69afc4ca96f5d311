"""Which device and dtype a model runs in when the user does not say."""

from __future__ import annotations

import os

import torch

from lmms_topoprune.errors import OptionError, unknown

DTYPES = ("auto", "float32", "float16", "bfloat16")


def find_device(asked: str | None = None) -> str:
    """The device asked for, or the first of cuda (one per local process), mps and cpu that is there.

    Raises:
        OptionError: not the name of a device, or this machine has no such device.
    """
    if asked is None:
        return _best()
    try:
        kind = torch.device(asked).type
    except RuntimeError:
        raise unknown("device", asked, ("cpu", "cuda", "cuda:0", "mps")) from None
    if (kind == "cuda" and not torch.cuda.is_available()) or (
        kind == "mps" and not torch.backends.mps.is_available()
    ):
        raise OptionError(f"device is {asked!r}, which this machine lacks; allowed: {_best()}")
    return str(asked)


def _best() -> str:
    if torch.cuda.is_available():
        several = int(os.environ.get("WORLD_SIZE", 1)) > 1
        return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if several else "cuda"
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
