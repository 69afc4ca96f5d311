"""Plan a deletion as a list of changes; nothing is touched here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from lmms_topoprune.errors import SurgeryError
from lmms_topoprune.surgery.changes import Change, set_to
from lmms_topoprune.surgery.dense import Dense, layers_at
from lmms_topoprune.surgery.differences import (
    config_changes,
    layer_changes,
    outside_changes,
    outside_modules,
    renamed,
    shared_tensors,
    take_blocks,
)
from lmms_topoprune.surgery.exceptions import inert_attributes
from lmms_topoprune.surgery.meta_model import MISSING, configs, tensors

# A module of the model, its dense twin and its pruned twin.
Trio = tuple[nn.Module, nn.Module, nn.Module]

KEPT = "_topoprune_kept"  # on a pruned model: how many layers it had, and which of these it still has


def prepare(dense: Dense, pruned: PreTrainedModel, kept: tuple[int, ...]) -> list[Change]:
    """All changes of a deletion; applying them turns dense.model into the pruned model.

    Args:
        dense: the model before the deletion.
        pruned: dense.pruned_twin(kept).
        kept: layers that stay, ascending.

    Raises:
        SurgeryError: no configuration of this model expresses it.
    """
    if shared_tensors(dense.twin, dense.place.path, kept) != shared_tensors(pruned, dense.place.path, None):
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


def _of_layers(dense: Dense, pruned: PreTrainedModel, kept: tuple[int, ...]) -> Iterator[Change]:
    """Renumber: layer_idx and every other attribute that holds a layer's number."""
    after = layers_at(pruned, dense.place.path)
    renumber = {old: new for new, old in enumerate(kept)}
    counts, ignored = (len(dense.layers), len(kept)), inert_attributes(after)
    for new, old in enumerate(kept):
        try:
            for name, key, was, becomes in layer_changes(
                dense.layers[old], after[new], renumber, counts, ignored
            ):
                entries = vars(dense.place.layers[old].get_submodule(name))
                if entries.get(key) != was:
                    raise SurgeryError(f"its {key} is {entries.get(key)!r}, its configuration builds {was!r}")
                yield set_to(entries, key, becomes)
        except SurgeryError as error:
            raise SurgeryError(f"layer {old} would be another layer: {error}") from None


def _outside(dense: Dense, pruned: PreTrainedModel) -> Iterator[Change]:
    """Copies of per-layer lists and the like on modules outside the decoder layers."""
    for name, key, becomes in outside_changes(dense.twin, pruned, dense.place.path):
        yield set_to(vars(dense.model.get_submodule(name)), key, becomes)


def _of_blocks(dense: Dense, pruned: PreTrainedModel, kept: tuple[int, ...]) -> Iterator[Change]:
    """Tensors outside the layers that have one block a layer (per-layer embeddings) or go altogether."""
    after = outside_modules(pruned, dense.place.path)
    for name, module in outside_modules(dense.twin, dense.place.path).items():
        for key, tensor in tensors(module).items():
            real, remains = dense.model.get_submodule(name), tensors(after[name]).get(key)
            entries: dict[str, Any] = real._parameters if key in real._parameters else real._buffers
            if remains is None:  # such as the frequencies of a kind of layer of which none is left
                yield set_to(entries, key, MISSING)
            elif remains.shape != tensor.shape:
                shapes = tuple(tensor.shape), tuple(remains.shape)
                yield _taken(entries, key, take_blocks(f"{name}.{key}", *shapes, kept, len(dense.layers)))


def _taken(entries: dict[str, Any], key: str, take: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    return Change(entries, key, lambda: take(entries[key]))


def _of_configs(dense: Dense, pruned: PreTrainedModel, kept: tuple[int, ...]) -> Iterator[Change]:
    """Every configuration object that the model or one of its modules holds."""
    seen: set[int] = set()
    for trio in _trios(dense, pruned, kept):
        for key, real in configs(trio[0]).items():
            before, after = (vars(twin).get(key) for twin in trio[1:])
            if isinstance(before, PreTrainedConfig) and isinstance(after, PreTrainedConfig):
                for holder, field, becomes in config_changes(real, before, after, seen):
                    yield set_to(vars(holder), field, becomes)


def _trios(dense: Dense, pruned: PreTrainedModel, kept: tuple[int, ...]) -> Iterator[Trio]:
    before, after = dict(dense.twin.named_modules()), dict(pruned.named_modules())
    for name, module in dense.model.named_modules():
        target = renamed(name, dense.place.path, kept)
        if target in after and name in before:
            yield module, before[name], after[target]


def _of_device_map(dense: Dense, kept: tuple[int, ...]) -> Iterator[Change]:
    """The names of layers in accelerate's device map."""
    devices = getattr(dense.model, "hf_device_map", None)
    if devices:
        names = {name: renamed(name, dense.place.path, kept) for name in devices}
        moved = {new: devices[old] for old, new in names.items() if new is not None}
        yield set_to(vars(dense.model), "hf_device_map", moved)


def _of_note(dense: Dense, kept: tuple[int, ...]) -> Change:
    entries, layers = vars(dense.model), len(dense.layers)
    first, before = entries.get(KEPT, (layers, tuple(range(layers))))
    return set_to(entries, KEPT, (first, tuple(before[layer] for layer in kept)))


def _of_list(dense: Dense, kept: tuple[int, ...]) -> Change:
    layers = dense.place.layers
    return set_to(vars(layers), "_modules", {str(new): layers[old] for new, old in enumerate(kept)})
