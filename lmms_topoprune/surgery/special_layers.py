"""What a model's structure does not show: layers that a forward pass or a cache singles out by number."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from lmms_topoprune.errors import SurgeryError
from lmms_topoprune.surgery.locate import locate, walk_configs

# Tensors outside the layers whose elements are one contiguous block a layer (Gemma 3n, Gemma 4).
_BLOCKED = ("embed_tokens_per_layer.weight", "per_layer_model_projection.weight")
# Attributes that only matter if some layer has another attribute set: whoever stores keys and values for
# later layers (Gemma 3n, Gemma 4) may change when no layer reads them.
_INERT = {"store_full_length_kv": "is_kv_shared_layer"}
_MEANING = {"store_full_length_kv": ", since later layers read the keys and values of the deleted layer"}
# Layers without keys and values: a cache cannot tell its length from them.
_WITHOUT_LENGTH = {"linear_attention", "conv", "moe"}
# Arguments of a layer that the layer before it made, and the field that says which layers take them over.
_HANDED_ON = re.compile("^prev(ious)?_")
_TAKEN_OVER = "indexer_types"


def is_blocked(name: str) -> bool:
    return name.endswith(_BLOCKED)


def inert_attributes(layers: nn.ModuleList) -> set[str]:
    """Attributes whose change has no effect in these layers."""
    return {
        attribute
        for attribute, reader in _INERT.items()
        if not any(getattr(module, reader, False) for module in layers.modules())
    }


def meaning(attribute: str) -> str:
    """What a change of this attribute stands for, to be appended to a message; often nothing."""
    return _MEANING.get(attribute, "")


def must_stay(model: PreTrainedModel, layers: int) -> dict[int, str]:
    """Layers that a forward pass singles out by their number, or that hand more than hidden states on."""
    found = _handing_on(model, layers)
    for _, config in walk_configs(model.config):
        fields = vars(config)
        # Idefics 1: a cross-attention block runs before every k-th layer.
        if step := fields.get("cross_layer_interval"):
            reason = (
                f"cross-attention runs before every layer whose number {step} divides (cross_layer_interval)"
            )
            found |= dict.fromkeys(range(layers), reason)
        # Qwen3-VL: one visual feature is added after each of the first layers.
        for layer in range(len(fields.get("deepstack_visual_indexes") or ())):
            found[layer] = (
                "it receives DeepStack features, which go to the first layers (deepstack_visual_indexes)"
            )
        # Granite 4 Vision: pairs of (vision layer, decoder layer), and decoder layers.
        for _, layer in fields.get("deepstack_layer_map") or ():
            found[layer] = "it receives DeepStack features (deepstack_layer_map)"
        for layer in fields.get("spatial_target_layers") or ():
            found[layer] = "it receives spatial vision features (spatial_target_layers)"
        # Inkling 2: layers from one number to another run several times.
        for layer in range(fields.get("loop_layer_index_end") or 0):
            found[layer] = "layers run in a loop from one number to another (loop_layer_index_start and _end)"
    return {layer: reason for layer, reason in sorted(found.items()) if layer < layers}


def _handing_on(model: PreTrainedModel, layers: int) -> dict[int, str]:
    """All layers but the last where each takes something over from the one before it (Zaya's router)."""
    place = locate(model)
    if hasattr(place.config, _TAKEN_OVER):  # check_donors knows better
        return {}
    given = inspect.signature(type(place.layers[0]).forward).parameters
    taken = [name for name in given if _HANDED_ON.match(name)]
    reason = f"the next layer takes {' and '.join(taken)} over from it"
    return dict.fromkeys(range(layers - 1), reason) if taken else {}


def check_donors(text: dict[str, Any], kept: Sequence[int]) -> None:
    """Refuse to delete a layer whose choice of tokens a kept one takes over (GLM-5, HY V4, Mistral Large 4).

    Raises:
        SurgeryError: names both layers.
    """
    types = text.get(_TAKEN_OVER) or ()
    for layer in kept if "shared" in types else ():
        donor = max((other for other in range(layer) if types[other] == "full"), default=layer)
        if types[layer] == "shared" and donor not in kept:
            raise SurgeryError(
                f"layer {layer} takes over which tokens layer {donor} attends to ({_TAKEN_OVER})"
            )


def check_cache(text: dict[str, Any], kept: Sequence[int]) -> None:
    """Refuse what a key-value cache cannot serve, given the fields of the dense decoder.

    Raises:
        SurgeryError: the first layer would attend to the image only (Mllama), or no layer would attend.
    """
    if kept[0] in (text.get("cross_attention_layers") or ()):
        raise SurgeryError(
            f"cross-attention layer {kept[0]} would come first, where a cache expects self-attention"
        )
    types = text.get("layer_types") or text.get("layers_block_type") or ()  # Nemotron H says the latter
    if set(types) - _WITHOUT_LENGTH and not {types[layer] for layer in kept} - _WITHOUT_LENGTH:
        raise SurgeryError("no attention layer would be left, and a cache needs one to tell its length")
