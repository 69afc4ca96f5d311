"""Device maps that leave the dropped layers out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import accelerate
import torch
from accelerate.utils import get_balanced_memory
from transformers import PreTrainedModel

from lmms_topoprune.errors import InputError
from lmms_topoprune.plan import PruningPlan

Device = str | int | torch.device
POLICIES = ("auto", "balanced", "balanced_low_0", "sequential")


class PartialDeviceMap(dict[str, Device]):
    """A device map in which dropped layers lie on "meta", where nothing is read or stored.

    Its values are the devices that the finished model uses: with "meta" among them accelerate would
    take the model for a split one and put hooks on its modules.
    """

    def values(self) -> Any:
        return [device for device in super().values() if str(device) != "meta"]


def partial_device_map(
    pruned: PreTrainedModel, path: str, plan: PruningPlan, wanted: Any, max_memory: Any
) -> PartialDeviceMap:
    """Devices for the modules of the dense model, with an entry of its own for every layer.

    transformers matches names by their beginning: an entry for "layers.1" would also speak for "layers.10".

    Args:
        pruned: the pruned model on the meta device; "auto" and its kin are measured on it.
        path: name of the list of decoder layers.
        plan: which layers are dropped.
        wanted: what the caller gave as device_map, in terms of the dense model.
        max_memory: what the caller gave as max_memory.

    Raises:
        InputError: `wanted` is a map that names no device for a kept layer.
    """
    if isinstance(wanted, str) and wanted in POLICIES:
        wanted = _dense_names(_infer(pruned, wanted, max_memory), path, plan)
    elif not isinstance(wanted, Mapping):
        wanted = {"": torch.get_default_device() if wanted is None else wanted}
    devices = PartialDeviceMap(wanted)
    for layer in range(plan.layers):
        name = f"{path}.{layer}"
        inside = [key for key in wanted if f"{key}.".startswith(f"{name}.")]
        if layer in plan.dropped:
            for key in inside:
                del devices[key]
            devices[name] = "meta"
        elif not inside:
            devices[name] = _device_around(name, wanted)
    return devices


def _dense_names(devices: Mapping[str, Device], path: str, plan: PruningPlan) -> dict[str, Device]:
    """A map of the pruned model's modules in terms of the dense model."""

    def dense(match: re.Match[str]) -> str:
        return f"{path}.{plan.kept[int(match[1])]}"

    return {re.sub(rf"^{re.escape(path)}\.(\d+)", dense, key): device for key, device in devices.items()}


def _device_around(name: str, devices: Mapping[str, Device]) -> Device:
    """The device of the closest enclosing module."""
    around = [key for key in devices if key == "" or name.startswith(f"{key}.")]
    if not around:
        raise InputError(f"device_map names no device for {name}; add an entry for it or for ''")
    return devices[max(around, key=len)]


def _infer(pruned: PreTrainedModel, policy: str, max_memory: Any) -> dict[str, Device]:
    whole = list(pruned._no_split_modules or ())
    if policy != "sequential":
        max_memory = get_balanced_memory(pruned, max_memory, whole, low_zero=policy == "balanced_low_0")
    return dict(accelerate.infer_auto_device_map(pruned, max_memory, whole))
