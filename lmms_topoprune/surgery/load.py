"""Loading a model as a plan leaves it, without reading the weights of the layers that the plan drops.

The dropped layers are placed on the meta device while transformers loads the checkpoint: it maps the files
into memory and asks for no byte of a tensor that goes there. Then delete_layers does the rest, so that the
result is what it makes of the dense model, for every architecture, sharding and naming of the weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import accelerate
import torch
import transformers
from accelerate.utils import get_balanced_memory
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedModel

from lmms_topoprune.compat.from_pretrained import meta_tensors_unread
from lmms_topoprune.errors import InputError, SurgeryError
from lmms_topoprune.plan import PruningPlan
from lmms_topoprune.surgery.checkpoint import Checkpoint, is_quantized
from lmms_topoprune.surgery.delete import PreparedDeletion
from lmms_topoprune.surgery.dense_model import DenseModel
from lmms_topoprune.surgery.locate import locate

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


def load_pruned(
    path: Path | str, plan: PruningPlan, *, model_class: Any = None, verify: bool = False, **kwargs: Any
) -> Any:
    """Load a dense checkpoint without the layers that a plan drops, as delete_layers would leave it.

    Args:
        path: local folder or hub id of the dense model.
        plan: what to drop.
        model_class: a model or Auto class; by default the one that config.json names.
        verify: compare the plan's fingerprint with that of the checkpoint in any type, from samples of every
            tensor; quantized files and files of several types are refused, since theirs cannot be told.
        kwargs: anything that from_pretrained takes; a device_map is in terms of the dense model.

    Returns:
        What from_pretrained returns: the model, or (model, info) with output_loading_info=True.

    Raises:
        InputError: the plan was made for another model, it has a repair or a healing, which need the dropped
            layers, or the checkpoint's own code would have to be run and trust_remote_code=True is not given.
        SurgeryError: a layer of the plan cannot be deleted from this model.
    """
    if plan.changes_weights:
        what = f"{plan.repair['method']} repair" if plan.repair else "healing"
        raise InputError(
            f"the plan has a {what}, which needs the layers that partial loading "
            "leaves out; load the dense model and carry the plan out on it, or load an exported folder"
        )
    kwargs["trust_remote_code"] = bool(kwargs.get("trust_remote_code"))  # None makes transformers ask
    checkpoint = Checkpoint(str(path), model_class, kwargs)
    config = checkpoint.config
    model_class = model_class or model_class_of(config)
    dense = replace(checkpoint, model_class=model_class).skeleton
    where = locate(dense)
    if len(where.layers) != plan.layers:
        raise InputError(f"the plan is for {plan.layers} layers, {str(path)!r} has {len(where.layers)}")
    # What cannot be deleted is refused here: no weight has been read.
    deletion = PreparedDeletion.of(DenseModel.of(dense, where, dense), plan.dropped)
    if verify:
        _verify(str(path), model_class, kwargs, plan)
    if not is_quantized(config, kwargs):  # a quantizer looks at every weight
        wanted, max_memory = kwargs.get("device_map"), kwargs.get("max_memory")
        kwargs["device_map"] = partial_device_map(deletion.pruned, where.path, plan, wanted, max_memory)
    with meta_tensors_unread():
        loaded = model_class.from_pretrained(path, **kwargs)
    model = loaded[0] if isinstance(loaded, tuple) else loaded
    deletion.apply_to(model)
    _check_loaded(model)
    return loaded


def model_class_of(config: Any) -> Any:
    """The model class that a configuration names, or an Auto class for it."""
    for name in config.architectures or ():
        if hasattr(transformers, name):
            return getattr(transformers, name)
    multimodal = type(config) in AutoModelForImageTextToText._model_mapping
    return AutoModelForImageTextToText if multimodal else AutoModelForCausalLM


def _verify(path: str, model_class: Any, options: Mapping[str, Any], plan: PruningPlan) -> None:
    """Raise if samples of the checkpoint tell, in every type, that the plan was made for another one."""
    as_asked = Checkpoint(path, model_class, options).skeleton.dtype
    for dtype in dict.fromkeys((as_asked, torch.float32, torch.bfloat16, torch.float16)):
        found = Checkpoint(path, model_class, {**options, "dtype": dtype}).fingerprint
        if found == plan.fingerprint:
            return
        if found is None:
            raise InputError(
                f"{path!r} is quantized or of several types, so verify cannot tell its fingerprint"
            )
    raise InputError(
        f"the plan was made for a model with fingerprint {plan.fingerprint}, which {path!r} has in no type; "
        "leave verify out if you know that they are the same"
    )


def _check_loaded(model: PreTrainedModel) -> None:
    """No kept layer may have stayed on the meta device, except where accelerate fetches it when needed."""
    left = [name for name, tensor in model.named_parameters() if tensor.device.type == "meta"]
    if left and not hasattr(model, "hf_device_map"):
        raise SurgeryError(
            f"{left[0]} was not loaded, which this version of transformers may be the cause of; "
            "load the dense model and use delete_layers"
        )
