"""Patches of how transformers loads a model; made for transformers 5.24."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from lmms_topoprune.compat.touched import replaced


@contextmanager
def loading_through(load: Callable[..., Any]) -> Iterator[None]:
    """Within this block transformers' `Class.from_pretrained(...)` is load(original, Class, ...).

    Wrappers of lmms-eval load their model in their own constructor, in many ways; without this a model is
    loaded with the layers that its plan drops. Made for transformers 5.24.

    Args:
        load: gets the bound original, the class, and what from_pretrained was given.
    """
    from transformers import PreTrainedModel

    original = PreTrainedModel.__dict__["from_pretrained"].__func__

    def from_pretrained(kind: Any, *given: Any, **named: Any) -> Any:
        return load(partial(original, kind), kind, *given, **named)

    with replaced(PreTrainedModel, from_pretrained=classmethod(from_pretrained)):
        yield


@contextmanager
def meta_tensors_unread() -> Iterator[None]:
    """Within this block from_pretrained makes up what goes to the meta device from its shape and type.

    By itself it takes the tensor out of the file first. That reads its first page, and with it as much as the
    system reads ahead: 128 kB on most disks, megabytes on some. Made for transformers 5.24; a version that
    loads in another way goes on as it does.
    """
    import torch
    from transformers import core_model_loading

    take_out = getattr(core_model_loading, "_materialize_copy", None)
    if take_out is None:
        yield
        return

    def take(tensor: Any, device: Any = None, dtype: torch.dtype | None = None) -> torch.Tensor:
        if str(device) == "meta" and hasattr(tensor, "get_shape") and dtype is not None:
            return torch.empty(tensor.get_shape(), dtype=dtype, device="meta")
        found: torch.Tensor = take_out(tensor, device, dtype)
        return found

    with replaced(core_model_loading, _materialize_copy=take):
        yield


def never_ask_for_code() -> None:
    """Refuse a checkpoint's own code where nobody said anything about it, instead of asking.

    transformers 5.24 waits 15 seconds for an answer on standard input; without this a "y" that was meant for
    something else runs the code, and the question stands in what --json prints.
    """
    from transformers import dynamic_module_utils

    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0
