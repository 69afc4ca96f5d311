"""Adapters (LoRA and its kin) that a model carries beside its own weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from lmms_topoprune._util.signals import errors_kept
from lmms_topoprune.errors import InputError


def adapters_of(model: nn.Module) -> list[str]:
    """Names of the adapters, as peft and transformers' own integration note them; empty without any."""
    named = [name for _, layer in _adapted(model) for name in getattr(layer, "active_adapters", ())]
    return list(dict.fromkeys([*named, *getattr(model, "peft_config", {})]))


def merge_adapters(model: PreTrainedModel) -> None:
    """Add the active adapters to the weights, in place, and take the adapters' modules away.

    Raises:
        InputError: an adapter is of a kind that cannot be merged.
    """
    for name, layer in list(_adapted(model)):
        with errors_kept() as merging:
            layer.merge(safe_merge=True)
        if merging.error:
            raise InputError(
                f"the adapter on {name} cannot be merged: {' '.join(str(merging.error).split())}"
            )
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer.get_base_layer())
    if hasattr(model, "_hf_peft_config_loaded"):
        model._hf_peft_config_loaded = False
    vars(model).pop("peft_config", None)


def _adapted(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Layers that wrap one of the model's own, the outermost only."""
    for name, module in model.named_modules():
        if hasattr(module, "base_layer") and hasattr(module, "merge") and hasattr(module, "get_base_layer"):
            yield name, module
