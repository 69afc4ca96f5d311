"""Loading a model as a plan leaves it, without reading the weights of the layers that the plan drops.

The dropped layers are placed on the meta device while transformers loads the checkpoint: it maps the files
into memory and asks for no byte of a tensor that goes there. Then delete_layers does the rest, so that the
result is what it makes of the dense model, for every architecture, sharding and naming of the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedModel

from lmms_topoprune._util.compat import meta_tensors_unread
from lmms_topoprune.errors import InputError, SurgeryError
from lmms_topoprune.plan import PruningPlan
from lmms_topoprune.surgery.checkpoint import Checkpoint, is_quantized
from lmms_topoprune.surgery.delete import PreparedDeletion
from lmms_topoprune.surgery.dense_model import DenseModel
from lmms_topoprune.surgery.device_map import partial_device_map
from lmms_topoprune.surgery.locate import locate


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
