"""Keeping transformers from touching the weights that it is told to place on the meta device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from transformers import core_model_loading

# transformers' function that takes a tensor out of a mapped file and moves it to its device.
_NAME = "_materialize_copy"


@contextlib.contextmanager
def meta_unread() -> Iterator[None]:
    """While open, from_pretrained makes up what goes to the meta device from its shape and type.

    By itself it takes the tensor out of the file first. That reads its first page, and with it as much as the
    system reads ahead: 128 kB on most disks, megabytes on some. A version of transformers that loads
    in another way goes on as it does.
    """
    take_out = getattr(core_model_loading, _NAME, None)
    if take_out is None:
        yield
        return

    def take(tensor: Any, device: Any = None, dtype: torch.dtype | None = None) -> torch.Tensor:
        if str(device) == "meta" and hasattr(tensor, "get_shape") and dtype is not None:
            return torch.empty(tensor.get_shape(), dtype=dtype, device="meta")
        return take_out(tensor, device, dtype)

    with mock.patch.object(core_model_loading, _NAME, take):
        yield
