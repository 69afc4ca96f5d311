"""Meta models: what transformers would build from a configuration, and how two of them differ.

A meta model lies on the meta device, so it has no weights and takes a fraction of a second. Comparing that of
the dense configuration with that of the pruned one shows, for any architecture, which attributes a deletion
has to change and whether a kept layer would become another layer.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.utils import logging

# Types that may be the default one.
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_PLAIN = (int, float, complex, str, bytes, bool, type(None), torch.dtype)
# State of nn.Module itself, and what from_pretrained leaves on a model.
_BOOKKEEPING = frozenset(vars(nn.Module())) | {"_is_hf_initialized", "generation_config", "name_or_path"}
MISSING = object()


_REMEMBERED = 64  # a few megabytes each for a decoder of 32 layers
_built: OrderedDict[tuple[Any, ...], PreTrainedModel] = OrderedDict()


def build_meta_model(model: PreTrainedModel, config: dict[str, Any]) -> PreTrainedModel:
    """The model that transformers builds from this configuration in the type of `model`, without weights.

    The last ones are remembered, since a sweep asks the same again and again: to be read, not to be changed.
    """
    dtype = model.dtype if model.dtype in _DTYPES else torch.get_default_dtype()
    key = type(model), type(model.config), dtype, json.dumps(config, sort_keys=True, default=repr)
    found = _built.pop(key, None)
    if found is None:
        with quietly(), on_meta_device(), _default_dtype(dtype):
            found = type(model)(type(model.config).from_dict(copy.deepcopy(config)))
    _built[key] = found
    while len(_built) > _REMEMBERED:
        _built.popitem(last=False)
    return found


@contextlib.contextmanager
def on_meta_device() -> Iterator[None]:
    """Models that are built here have their weights on the meta device, and nothing fills them."""
    with torch.device("meta"), contextlib.ExitStack() as stack:
        for name in ("no_init_weights", "meta_device_safe_creation_ops"):
            if hasattr(init, name):
                stack.enter_context(getattr(init, name)())
        yield


@contextlib.contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Constructors may compute attributes in the default type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """No warnings about configurations that are only tried."""
    level = logging.get_verbosity()
    logging.set_verbosity(40)  # logging.ERROR
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)


def tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """A module's own parameters and buffers."""
    own = {**module._parameters, **module._buffers}
    return {name: tensor for name, tensor in own.items() if tensor is not None}


def differences(before: nn.Module | PreTrainedConfig, after: Any) -> dict[str, tuple[Any, Any]]:
    """Plain attributes in which two objects of one class differ, as name -> (before, after).

    Modules, tensors, functions and nested configurations are left out.
    """
    old, new = vars(before), vars(after)
    keys = [key for key in {**old, **new} if key not in _BOOKKEEPING]
    pairs = {key: (old.get(key, MISSING), new.get(key, MISSING)) for key in keys}
    return {key: pair for key, pair in pairs.items() if _differ(*pair)}


def configs(holder: nn.Module | PreTrainedConfig) -> dict[str, PreTrainedConfig]:
    """The configuration objects an object holds in its attributes."""
    return {key: value for key, value in vars(holder).items() if isinstance(value, PreTrainedConfig)}


def _differ(old: Any, new: Any) -> bool:
    if old is MISSING or new is MISSING:
        return _is_plain(old if new is MISSING else new)
    return _is_plain(old) and _is_plain(new) and (type(old) is not type(new) or bool(old != new))


def _is_plain(value: Any) -> bool:
    if isinstance(value, PreTrainedConfig):
        return False
    if isinstance(value, list | tuple | set | frozenset):
        return all(_is_plain(item) for item in value)
    if isinstance(value, dict):
        return all(_is_plain(item) for item in value.values())
    return isinstance(value, _PLAIN) or (dataclasses.is_dataclass(value) and not isinstance(value, type))
