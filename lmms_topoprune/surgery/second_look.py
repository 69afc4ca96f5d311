"""Half-precision models computing in float32 for a while, in little more memory than they have already."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from lmms_topoprune.surgery.locate import locate

HALF = (torch.bfloat16, torch.float16)


@contextmanager
def in_float32(model: nn.Module) -> Iterator[None]:
    """Within this block the model computes in float32, and each of its weights afterwards is what it was.

    A decoder layer, or any other part, has float32 weights only while it computes: beside the model there is
    never more than one of them. Of a model of 7 billion parameters that is about one gigabyte for a layer and
    two for the embeddings.
    """
    parts = list(_parts(model, {*locate(model).layers}))
    inside = {id(tensor) for part in parts for tensor in _tensors(part)}
    with ExitStack() as undone:
        undone.callback(_narrow, _widened([t for t in _tensors(model) if id(t) not in inside]))
        for part in parts:
            for handle in _listening(part):
                undone.callback(handle.remove)
        yield


def _parts(module: nn.Module, layers: set[nn.Module]) -> Iterator[nn.Module]:
    """The decoder layers, and the largest modules that hold none; lists of modules are never called."""
    for child in module.children():
        above = isinstance(child, nn.ModuleList | nn.ModuleDict) or not layers.isdisjoint(child.modules())
        if child not in layers and above:
            yield from _parts(child, layers)
        else:
            yield child


def _listening(part: nn.Module) -> Iterator[Any]:
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []

    def before(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        kept.extend(_widened(_tensors(part)))
        return tuple(map(_float, given)), {name: _float(value) for name, value in named.items()}

    def after(*_: Any) -> None:
        _narrow(kept)
        kept.clear()

    yield part.register_forward_pre_hook(before, with_kwargs=True)
    yield part.register_forward_hook(after, always_call=True)


def _tensors(module: nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]


def _widened(tensors: list[torch.Tensor]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Give half-precision tensors float32 data; returns them with what they had."""
    kept = [(tensor, tensor.data) for tensor in tensors if tensor.dtype in HALF]
    for tensor, data in kept:
        tensor.data = data.float()
    return kept


def _narrow(kept: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    for tensor, data in kept:
        tensor.data = data


def _float(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_float, value))
    return value.float() if isinstance(value, torch.Tensor) and value.dtype in HALF else value
