"""Whether the kept layers stay what they are, and which attributes have to follow."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from lmms_topoprune.errors import SurgeryError
from lmms_topoprune.surgery.meta_model import MISSING, configs, differences, tensors
from lmms_topoprune.surgery.special_layers import is_blocked, meaning


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
