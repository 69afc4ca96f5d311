"""A deletion as a list of edits: new values for entries of objects' dictionaries, which can be undone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from lmms_topoprune.errors import SurgeryError
from lmms_topoprune.surgery.dense_model import DenseModel, layers_at
from lmms_topoprune.surgery.meta_model import (
    MISSING,
    config_changes,
    configs,
    layer_changes,
    outside_changes,
    outside_modules,
    renamed,
    shared_tensors,
    take_blocks,
    tensors,
)
from lmms_topoprune.surgery.special_layers import inert_attributes

KEPT = "_topoprune_kept"  # (layers of the dense model, those of them that are left)
REPAIR = "_topoprune_repair"
CUTS = "cuts"
HEALING = "_topoprune_healing"
OUTCOME = "outcome"  # of a healing: steps, tokens and losses

# A module of the model, and what stands for it in the dense and in the pruned meta model.
Trio = tuple[nn.Module, nn.Module, nn.Module]


def repair_of(model: nn.Module) -> dict[str, Any]:
    """The record of the repair that is in force on a model; empty without one."""
    return dict(vars(model).get(REPAIR, {}))


def healing_of(model: nn.Module) -> dict[str, Any]:
    """The record of the healing that is in force on a model, without what came of it; empty without one."""
    record = vars(model).get(HEALING, {})
    return {name: value for name, value in record.items() if name != OUTCOME}


def outcome_of(model: nn.Module) -> dict[str, float]:
    """What came of the healing that is in force on a model: steps, tokens, seconds, losses; empty without."""
    return dict(vars(model).get(HEALING, {}).get(OUTCOME, {}))


@dataclass(frozen=True)
class Edit:
    """A new value for one entry of one object's dictionary; MISSING stands for no entry.

    Attributes:
        entries: the dictionary, such as vars(module).
        key: the entry.
        make: makes the new value, when the edit is applied.
    """

    entries: dict[str, Any]
    key: str
    make: Callable[[], Any]

    def apply(self) -> Undo:
        """Set the entry and return what sets it back."""
        return _put(self.entries, self.key, self.make())


Undo = Callable[[], Any]
"""Takes an edit back, and returns what makes it again."""


def _put(entries: dict[str, Any], key: str, value: Any) -> Undo:
    """Set an entry and return what sets it back, which returns what sets it again, and so on."""
    old = entries.get(key, MISSING)
    if value is MISSING:
        entries.pop(key, None)
    else:
        entries[key] = value
    return lambda: _put(entries, key, old)


def apply_edits(edits: Iterable[Edit]) -> list[Undo]:
    """Apply all edits or none, and return what undoes them, to be called from the last to the first.

    Raises:
        Whatever an edit raises, once those before it are undone.
    """
    undo: list[Undo] = []
    try:
        for edit in edits:
            undo.append(edit.apply())
    except BaseException:
        for step in reversed(undo):
            step()
        raise
    return undo


def set_to(entries: dict[str, Any], key: str, value: Any) -> Edit:
    return Edit(entries, key, lambda: value)


def _follow(entries: dict[str, Any], key: str, value: Any) -> Edit:
    """An edit to a copy of a meta model's value: that model is remembered and must not change."""
    return Edit(entries, key, lambda: value if value is MISSING else copy.deepcopy(value))


def plan_edits(dense: DenseModel, pruned: PreTrainedModel, kept: tuple[int, ...]) -> list[Edit]:
    """All edits of a deletion; applying them turns dense.model into the pruned model.

    Args:
        dense: the model before the deletion.
        pruned: dense.pruned_meta_model(kept).
        kept: layers that stay, ascending.

    Raises:
        SurgeryError: no configuration of this model expresses it.
    """
    if shared_tensors(dense.meta_model, dense.location.path, kept) != shared_tensors(
        pruned, dense.location.path, None
    ):
        raise SurgeryError("weights are shared between layers in another way after the deletion")
    return [
        *_of_layers(dense, pruned, kept),
        *_outside(dense, pruned),
        *_of_blocks(dense, pruned, kept),
        *_of_configs(dense, pruned, kept),
        *_of_device_map(dense, kept),
        _of_note(dense, kept),
        _of_list(dense, kept),
    ]


def _of_layers(dense: DenseModel, pruned: PreTrainedModel, kept: tuple[int, ...]) -> Iterator[Edit]:
    """Renumber: layer_idx and every other attribute that holds a layer's number."""
    after = layers_at(pruned, dense.location.path)
    renumber = {old: new for new, old in enumerate(kept)}
    counts, ignored = (len(dense.layers), len(kept)), inert_attributes(after)
    for new, old in enumerate(kept):
        try:
            for name, key, was, becomes in layer_changes(
                dense.layers[old], after[new], renumber, counts, ignored
            ):
                entries = vars(dense.location.layers[old].get_submodule(name))
                if entries.get(key) != was:
                    raise SurgeryError(f"its {key} is {entries.get(key)!r}, its configuration builds {was!r}")
                yield _follow(entries, key, becomes)
        except SurgeryError as error:
            raise SurgeryError(f"layer {old} would be another layer: {error}") from None


def _outside(dense: DenseModel, pruned: PreTrainedModel) -> Iterator[Edit]:
    """Copies of per-layer lists and the like on modules outside the decoder layers."""
    for name, key, becomes in outside_changes(dense.meta_model, pruned, dense.location.path):
        yield _follow(vars(dense.model.get_submodule(name)), key, becomes)


def _of_blocks(dense: DenseModel, pruned: PreTrainedModel, kept: tuple[int, ...]) -> Iterator[Edit]:
    """Tensors outside the layers that have one block a layer (per-layer embeddings) or go altogether."""
    after = outside_modules(pruned, dense.location.path)
    for name, module in outside_modules(dense.meta_model, dense.location.path).items():
        for key, tensor in tensors(module).items():
            real, remains = dense.model.get_submodule(name), tensors(after[name]).get(key)
            entries: dict[str, Any] = real._parameters if key in real._parameters else real._buffers
            if remains is None:  # such as the frequencies of a kind of layer of which none is left
                yield set_to(entries, key, MISSING)
            elif remains.shape != tensor.shape:
                shapes = tuple(tensor.shape), tuple(remains.shape)
                yield _taken(entries, key, take_blocks(f"{name}.{key}", *shapes, kept, len(dense.layers)))


def _taken(entries: dict[str, Any], key: str, take: Callable[[torch.Tensor], torch.Tensor]) -> Edit:
    return Edit(entries, key, lambda: take(entries[key]))


def _of_configs(dense: DenseModel, pruned: PreTrainedModel, kept: tuple[int, ...]) -> Iterator[Edit]:
    """Every configuration object that the model or one of its modules holds."""
    seen: set[int] = set()
    for trio in _trios(dense, pruned, kept):
        for key, real in configs(trio[0]).items():
            before, after = (vars(holder).get(key) for holder in trio[1:])
            if isinstance(before, PreTrainedConfig) and isinstance(after, PreTrainedConfig):
                for holder, field, becomes in config_changes(real, before, after, seen):
                    yield _follow(vars(holder), field, becomes)


def _trios(dense: DenseModel, pruned: PreTrainedModel, kept: tuple[int, ...]) -> Iterator[Trio]:
    before, after = dict(dense.meta_model.named_modules()), dict(pruned.named_modules())
    for name, module in dense.model.named_modules():
        target = renamed(name, dense.location.path, kept)
        if target in after and name in before:
            yield module, before[name], after[target]


def _of_device_map(dense: DenseModel, kept: tuple[int, ...]) -> Iterator[Edit]:
    """The names of layers in accelerate's device map."""
    devices = getattr(dense.model, "hf_device_map", None)
    if devices:
        names = {name: renamed(name, dense.location.path, kept) for name in devices}
        moved = {new: devices[old] for old, new in names.items() if new is not None}
        yield set_to(vars(dense.model), "hf_device_map", moved)


def _of_note(dense: DenseModel, kept: tuple[int, ...]) -> Edit:
    entries, layers = vars(dense.model), len(dense.layers)
    first, before = entries.get(KEPT, (layers, tuple(range(layers))))
    return set_to(entries, KEPT, (first, tuple(before[layer] for layer in kept)))


def _of_list(dense: DenseModel, kept: tuple[int, ...]) -> Edit:
    layers = dense.location.layers
    return set_to(vars(layers), "_modules", {str(new): layers[old] for new, old in enumerate(kept)})
