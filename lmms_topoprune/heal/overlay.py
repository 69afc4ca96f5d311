"""What is trained on top of frozen weights, and how it becomes plain weights in the end."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from lmms_topoprune.errors import SurgeryError
from lmms_topoprune.heal_options import HealingOptions

ADAPTER = "healing"
NewWeights = dict[nn.Module, dict[str, nn.Parameter]]


class Overlay(Protocol):
    """Trainable numbers over the frozen weights of decoder layers."""

    def parameters(self) -> dict[str, nn.Parameter]:
        """What is trained, float32, by a name that is the same in every run."""

    def switch(self, on: bool) -> None:
        """Count for the model's answers, or do not."""

    def finish(self) -> NewWeights:
        """Leave the model as it was before, and return the weights that say the same."""


def overlay_on(layers: nn.ModuleList, options: HealingOptions, seed: int) -> Overlay:
    """What the options train of these decoder layers; the rest of the model is frozen.

    Raises:
        SurgeryError: nothing in the layers can be trained.
    """
    if options.method == "full":
        return FullOverlay(layers)
    return LoraOverlay(layers, options.rank, seed)


class LoraOverlay:
    """Low-rank updates of all linear maps of some layers, by peft.

    Attributes:
        layers: the list of these layers.
        tuned: the maps with an update, by their names in it.

    Raises:
        SurgeryError: peft finds no linear map to update.
    """

    def __init__(self, layers: nn.ModuleList, rank: int, seed: int) -> None:
        from peft import LoraConfig, inject_adapter_in_model
        from peft.tuners.tuners_utils import BaseTunerLayer

        check_linear_maps(layers)
        self.layers = layers
        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=linear_maps(layers))
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            inject_adapter_in_model(config, layers, adapter_name=ADAPTER)
        found = {name: m for name, m in layers.named_modules() if isinstance(m, BaseTunerLayer)}
        self.tuned: dict[str, Any] = found
        vars(layers).pop("peft_config", None)  # the updates are gone before anybody else sees the model
        for parameter in self.parameters().values():
            parameter.data = parameter.data.float()

    def parameters(self) -> dict[str, nn.Parameter]:
        return {
            f"{name}.{part}": getattr(module, part)[ADAPTER].weight
            for name, module in self.tuned.items()
            for part in ("lora_A", "lora_B")
        }

    def switch(self, on: bool) -> None:
        for module in self.tuned.values():
            module.enable_adapters(on)

    def finish(self) -> NewWeights:
        made: NewWeights = {}
        for name, module in self.tuned.items():
            base = module.get_base_layer()
            delta = module.get_delta_weight(ADAPTER).detach().float().to(base.weight.device)
            value = (base.weight.detach().float() + delta).to(base.weight.dtype)
            made[base] = {"weight": nn.Parameter(value, requires_grad=False)}
            owner, _, last = name.rpartition(".")
            setattr(self.layers.get_submodule(owner), last, base)
        return made


class FullOverlay:
    """Copies of the parameters of some layers take the place of the frozen ones while they count."""

    def __init__(self, layers: nn.ModuleList) -> None:
        """Copies what of the layers can be trained.

        Raises:
            SurgeryError: nothing can.
        """
        self.frozen: dict[str, tuple[nn.Module, str, nn.Parameter]] = {}
        for number, layer in enumerate(layers):
            for name, module in layer.named_modules():
                for part, parameter in module.named_parameters(recurse=False):
                    if parameter.is_floating_point():
                        self.frozen[f"{number}.{name}.{part}"] = (module, part, parameter)
        if not self.frozen:
            raise SurgeryError("heal method is 'full', but the decoder layers have no weight to train")
        self.trained = {
            key: nn.Parameter(parameter.detach().float().clone())
            for key, (_, _, parameter) in self.frozen.items()
        }
        self.switch(True)

    def parameters(self) -> dict[str, nn.Parameter]:
        return self.trained

    def switch(self, on: bool) -> None:
        for key, (module, part, parameter) in self.frozen.items():
            module._parameters[part] = self.trained[key] if on else parameter

    def finish(self) -> NewWeights:
        self.switch(False)
        made: NewWeights = {}
        for key, (module, part, parameter) in self.frozen.items():
            value = self.trained[key].detach().to(parameter.dtype)
            made.setdefault(module, {})[part] = nn.Parameter(value, requires_grad=False)
        return made


def linear_maps(layers: nn.ModuleList) -> list[str]:
    """Names in a list of layers of the plain linear maps, which peft can update."""
    return [name for name, module in layers.named_modules() if type(module) in (nn.Linear, Conv1D)]


def check_linear_maps(layers: nn.ModuleList) -> None:
    """Refuse decoder layers, with weights or without, in which nothing can be updated.

    Raises:
        SurgeryError: they have no plain linear map.
    """
    if not linear_maps(layers):
        raise SurgeryError(
            f"heal method is 'lora', but {type(layers[0]).__name__} has no linear map that peft can update; "
            "allowed for this model: full"
        )
