"""What the structure of a model does not show: layers that a forward pass singles out by their number."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel

from lmms_topoprune.surgery.locate import walk_configs

# Tensors outside the layers whose elements are one contiguous block a layer (Gemma 3n, Gemma 4).
_BLOCKED = ("embed_tokens_per_layer.weight", "per_layer_model_projection.weight")
# Attributes that only matter if some layer has another attribute set: whoever stores keys and values for
# later layers (Gemma 3n, Gemma 4) may change when no layer reads them.
_INERT = {"store_full_length_kv": "is_kv_shared_layer"}


def is_blocked(name: str) -> bool:
    return name.endswith(_BLOCKED)


def inert_attributes(layers: nn.ModuleList) -> set[str]:
    """Attributes whose change has no effect in these layers."""
    return {
        attribute
        for attribute, reader in _INERT.items()
        if not any(getattr(module, reader, False) for module in layers.modules())
    }


def receivers(model: PreTrainedModel, layers: int) -> dict[int, str]:
    """Layers after or before which vision features are added, with the reason why they must stay."""
    found: dict[int, str] = {}
    for _, config in walk_configs(model.config):
        fields = vars(config)
        # Qwen3-VL: one visual feature is added after each of the first len(...) decoder layers.
        for layer in range(len(fields.get("deepstack_visual_indexes") or ())):
            found[layer] = "it receives DeepStack features, which go to the first layers by number"
        # Granite 4 Vision: pairs of (vision layer, decoder layer), and decoder layers.
        for _, layer in fields.get("deepstack_layer_map") or ():
            found[layer] = "it receives DeepStack features"
        for layer in fields.get("spatial_target_layers") or ():
            found[layer] = "it receives spatial vision features"
    return {layer: reason for layer, reason in sorted(found.items()) if layer < layers}
