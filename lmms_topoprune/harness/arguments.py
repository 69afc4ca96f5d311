"""model_args, sorted: ours, the wrapped class's, and mistakes."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from lmms_topoprune.criteria import registry
from lmms_topoprune.device import find_device, find_dtype
from lmms_topoprune.errors import OptionError, nearest
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.registration import Registered

DENSE = "dense"


def parameters(wrapped: type) -> dict[str, Any]:
    """The named arguments of a wrapped class's constructor with their defaults."""
    signature = inspect.signature(wrapped.__init__)  # type: ignore[misc]
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {p.name: p.default for p in signature.parameters.values() if p.kind in named and p.name != "self"}


def take_options(model: Registered, arguments: dict[str, Any], allowed: dict[str, Any]) -> PruningOptions:
    """Pop this package's options out of `arguments`; what is left belongs to the wrapped class.

    Raises:
        OptionError: an unknown name or a value that is not allowed.
    """
    names = {*PruningOptions.names(), *allowed, "dtype"}
    for name in arguments:
        if name not in names:
            raise OptionError(
                f"{name!r} is no argument of {model.name}; allowed: {', '.join(sorted(names))}"
                f"{nearest(name, names)}"
            )
    criterion = str(arguments.get("criterion", model.criterion))
    options = PruningOptions.take(arguments, **registry.defaults(criterion))
    if model.criterion == DENSE:
        _refuse_pruning(model, options)
    return options


def _refuse_pruning(model: Registered, options: PruningOptions) -> None:
    for name, unset in (("sparsity", 0.0), ("layers", None), ("plan", None), ("criterion", DENSE)):
        value = getattr(options, name)
        if value != unset:
            raise OptionError(f"{name} is {value!r}; {model.name} deletes nothing, so leave it out")


def place(arguments: dict[str, Any], allowed: dict[str, Any]) -> torch.dtype | None:
    """Fill in device, device_map and dtype where the wrapped class takes them.

    Returns:
        What the loaded model has to be cast to, where the wrapped class has a dtype of its own.

    Raises:
        OptionError: a device, dtype or batch size that cannot be.
    """
    device = find_device(arguments.get("device"))
    chosen = {"device": device, "device_map": arguments.get("device_map") or device}
    arguments.update({name: value for name, value in chosen.items() if name in allowed})
    if "batch_size" in arguments:
        arguments["batch_size"] = _batch_size(arguments["batch_size"])
    dtype = find_dtype(arguments.pop("dtype", None), device)
    if dtype is not None and "dtype" in allowed:
        arguments["dtype"] = dtype
        return None
    if dtype is None or dtype == "auto":
        return None
    return dtype if isinstance(dtype, torch.dtype) else getattr(torch, dtype)


def _batch_size(given: Any) -> int:
    if not str(given).isdecimal() or int(given) < 1:
        raise OptionError(f"batch_size is {given!r}; allowed: whole numbers from 1")
    return int(given)
