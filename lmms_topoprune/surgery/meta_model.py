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
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.utils import logging

from lmms_topoprune.errors import SurgeryError
from lmms_topoprune.surgery.special_layers import is_blocked, meaning

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


def layer_changes(
    before: nn.Module,
    after: nn.Module,
    renumber: Mapping[int, int],
    counts: tuple[int, int] | None,
    ignored: Collection[str] = (),
) -> Iterator[tuple[str, str, Any, Any]]:
    """Attributes that change when layer `before` of the dense meta model becomes `after` of the pruned one.

    Args:
        before: a layer of the meta model of the dense configuration.
        after: the layer of that of the pruned configuration that takes its place.
        renumber: kept layer -> its new number.
        counts: number of layers before and after; None if no attribute may hold it.
        ignored: attributes that may change freely.

    Yields:
        (name of the module in the layer, attribute, value, new value).

    Raises:
        SurgeryError: the two differ in more than layer numbers.
    """
    old, new = dict(before.named_modules()), dict(after.named_modules())
    if old.keys() != new.keys():
        names = ", ".join(sorted(old.keys() ^ new.keys())[:3])
        raise SurgeryError(f"it would gain or lose {names}")
    for name, module in old.items():
        if type(module) is not type(new[name]):
            raise SurgeryError(f"{name or 'it'} would become a {type(new[name]).__name__}")
        _same_tensors(name, module, new[name])
        for key, (was, becomes) in differences(module, new[name]).items():
            if key not in ignored and not _is_number(was, becomes, renumber, counts):
                change = f"its {_dotted(name, key)} would change from {_say(was)} to {_say(becomes)}"
                raise SurgeryError(change + meaning(key))
            yield name, key, was, becomes


def _is_number(was: Any, becomes: Any, renumber: Mapping[int, int], counts: tuple[int, int] | None) -> bool:
    """The value is the number of a kept layer (counted from 0 or from 1) or the number of layers."""
    if type(was) is not int or type(becomes) is not int:
        return False
    return renumber.get(was) == becomes or renumber.get(was - 1) == becomes - 1 or (was, becomes) == counts


def _same_tensors(name: str, before: nn.Module, after: nn.Module) -> None:
    old, new = tensors(before), tensors(after)
    for key in sorted(old.keys() | new.keys()):
        shapes = [tuple(side[key].shape) if key in side else None for side in (old, new)]
        if shapes[0] != shapes[1]:
            raise SurgeryError(f"its {_dotted(name, key)} would change from {shapes[0]} to {shapes[1]}")


def outside_changes(
    before: PreTrainedModel, after: PreTrainedModel, path: str
) -> Iterator[tuple[str, str, Any]]:
    """The same for all other modules; there every attribute may follow the configuration.

    Raises:
        SurgeryError: a module outside the layers would come, go, change its type or gain a tensor.
    """
    old, new = outside_modules(before, path), outside_modules(after, path)
    if lost := sorted(old.keys() ^ new.keys()):
        raise SurgeryError(
            f"modules outside the decoder layers depend on their number: {', '.join(lost[:3])}"
        )
    for name, module in old.items():
        if type(module) is not type(new[name]):
            raise SurgeryError(f"{name} outside the decoder layers would become a {type(new[name]).__name__}")
        if gained := tensors(new[name]).keys() - tensors(module).keys():
            raise SurgeryError(f"{name} outside the decoder layers would need {', '.join(sorted(gained))}")
        for key, (_, becomes) in differences(module, new[name]).items():
            yield name, key, becomes


def outside_modules(model: nn.Module, path: str) -> dict[str, nn.Module]:
    return {name: module for name, module in model.named_modules() if not name.startswith(path + ".")}


def config_changes(
    real: PreTrainedConfig, before: PreTrainedConfig, after: PreTrainedConfig, seen: set[int]
) -> Iterator[tuple[PreTrainedConfig, str, Any]]:
    """(object, field, new value) for a configuration and all nested in it that are not in `seen`."""
    if id(real) in seen:
        return
    seen.add(id(real))
    for key, (_, becomes) in differences(before, after).items():
        yield real, key, becomes
    for key, nested in configs(real).items():
        inner = vars(before).get(key), vars(after).get(key)
        if isinstance(inner[0], PreTrainedConfig) and isinstance(inner[1], PreTrainedConfig):
            yield from config_changes(nested, inner[0], inner[1], seen)


def take_blocks(
    name: str, before: tuple[int, ...], after: tuple[int, ...], kept: tuple[int, ...], layers: int
) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function that takes the kept layers' blocks from a tensor outside the layers with one block a layer.

    Raises:
        SurgeryError: the shapes do not differ in exactly one dimension by the ratio of the numbers of
            layers, or the order of blocks wider than one element is unknown.
    """
    where = [i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b]
    size = before[where[0]] // layers if where else 0
    fits = len(before) == len(after) and len(where) == 1 and before[where[0]] == size * layers
    if not fits or after[where[0]] != size * len(kept) or (size > 1 and not is_blocked(name)):
        raise SurgeryError(f"{name} outside the layers would change its shape from {before} to {after}")
    index = [layer * size + offset for layer in kept for offset in range(size)]

    def take(tensor: torch.Tensor) -> torch.Tensor:
        chosen = tensor.detach().index_select(where[0], torch.tensor(index, device=tensor.device))
        is_parameter = isinstance(tensor, nn.Parameter)
        return nn.Parameter(chosen, requires_grad=tensor.requires_grad) if is_parameter else chosen

    return take


def shared_tensors(model: nn.Module, path: str, kept: tuple[int, ...] | None) -> set[frozenset[str]]:
    """Groups of names of one tensor, renumbered as if only the `kept` layers stayed (None: as they are)."""
    groups: dict[int, set[str]] = {}
    for name, tensor in model.named_parameters(remove_duplicate=False):
        target = name if kept is None else renamed(name, path, kept)
        if target is not None:
            groups.setdefault(id(tensor), set()).add(target)
    return {frozenset(group) for group in groups.values() if len(group) > 1}


def renamed(name: str, path: str, kept: Sequence[int]) -> str | None:
    """What the module or parameter `name` is called after the deletion; None in a deleted layer."""
    if not name.startswith(path + "."):
        return name
    number, dot, rest = name[len(path) + 1 :].partition(".")
    return f"{path}.{kept.index(int(number))}{dot}{rest}" if int(number) in kept else None


def _dotted(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _say(value: Any) -> str:
    return "nothing" if value is MISSING else repr(value)
