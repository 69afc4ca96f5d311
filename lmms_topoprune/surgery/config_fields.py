"""The per-layer fields of a configuration, and what they become when layers go.

Everything works on the dictionary form, so that what is computed is what config.json can hold.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import Any

from lmms_topoprune.errors import SurgeryError

# The few fields whose meaning their form does not show: "the first k layers", "the last k layers".
FIRST_LAYERS = frozenset(
    {"max_window_layers", "first_k_dense_replace", "num_dense_layers", "n_dense_layers", "num_dense_replace"}
)
LAST_LAYERS = frozenset({"num_kv_shared_layers"})
SOURCES = frozenset({"kv_source_layers"})  # one entry a layer: the layer whose keys and values it reads
# Lists that are never one entry a layer, whatever their length.
_NOT_PER_LAYER = re.compile(r"token|architectures|vision|visual|image|audio|time_step|mrope|eos|labels")
_INDICES = re.compile(r"(layers|_idxs|_idx|_indices|_indexes|layer_ids)$")


def prune_config(
    config: dict[str, Any], sections: Sequence[str], count: str, kept: Sequence[int], layers: int
) -> dict[str, Any]:
    """The dictionary of a configuration with only the `kept` of its `layers` decoder layers.

    Args:
        config: `to_dict()` of the whole model's configuration; not changed.
        sections: keys that lead to the section that describes the decoder.
        count: field of that section that holds the number of layers.
        kept: layers that stay, ascending, counted from 0.
        layers: number of layers in `config`.

    Raises:
        SurgeryError: a kept layer reads the keys and values of one that goes.
    """
    pruned = copy.deepcopy(config)
    chain = [pruned]
    for key in sections:
        chain.append(chain[-1][key])
    text = chain[-1]
    mirrored = {key: value for key, value in text.items() if value is not None}
    _explicit_sparse_steps(text, layers)
    for key in list(text):
        text[key] = _prune_field(key, text[key], count, kept, layers)
    for outer in chain[:-1]:
        for key, value in outer.items():
            # Fuyu and others repeat fields of the text section outside of it.
            if value is not None and type(value) is not bool and mirrored.get(key) == value:
                outer[key] = _prune_field(key, value, count, kept, layers)
        _prune_injections(outer, kept)
    return pruned


def _prune_field(key: str, value: Any, count: str, kept: Sequence[int], layers: int) -> Any:
    if key == count and not isinstance(value, list | tuple):
        return len(kept)
    if key in FIRST_LAYERS and type(value) is int and value < layers:
        return sum(layer < value for layer in kept)
    if key in LAST_LAYERS and type(value) is int:
        return sum(layer >= layers - value for layer in kept)
    if key.endswith("per_layer_config") and not key.startswith("mtp") and isinstance(value, dict):
        return {str(new): value[key] for new, old in enumerate(kept) for key in value if int(key) == old}
    if key in SOURCES and isinstance(value, list) and len(value) == layers:
        return [_new_source(layer, value[layer], kept) for layer in kept]
    if isinstance(value, list | tuple) and not _NOT_PER_LAYER.search(key):
        return type(value)(_prune_list(key, value, kept, layers))
    return value


def _new_source(layer: int, source: int, kept: Sequence[int]) -> int:
    if source not in kept:
        raise SurgeryError(f"layer {layer} reads the keys and values of layer {source}")
    return kept.index(source)


def _prune_list(key: str, value: Sequence[Any], kept: Sequence[int], layers: int) -> Sequence[Any]:
    """Renumber a list of layers; take the kept entries of a list with one entry a layer."""
    if _INDICES.search(key) and _is_index_list(value, layers):
        return [kept.index(layer) for layer in value if layer in kept]
    if len(value) == layers and not key.startswith("mtp"):
        return [value[layer] for layer in kept]
    return value


def _is_index_list(value: Sequence[Any], layers: int) -> bool:
    """Distinct ascending layer numbers; a list of 0 and 1 for each layer (no_rope_layers) repeats itself."""
    numbers = all(type(entry) is int and 0 <= entry < layers for entry in value)
    return bool(numbers and list(value) == sorted(set(value)))


def _explicit_sparse_steps(text: dict[str, Any], layers: int) -> None:
    """Turn a period of mixture-of-experts layers into the list of the dense ones."""
    step = text.get("decoder_sparse_step")
    if type(step) is int and step > 1 and "mlp_only_layers" in text:
        dense = set(text["mlp_only_layers"] or [])
        dense |= {layer for layer in range(layers) if (layer + 1) % step}
        text["mlp_only_layers"], text["decoder_sparse_step"] = sorted(dense), 1


def _prune_injections(outer: dict[str, Any], kept: Sequence[int]) -> None:
    """Renumber the layers into which vision features are injected (Granite 4 Vision)."""
    if pairs := outer.get("deepstack_layer_map"):
        outer["deepstack_layer_map"] = [
            (source, kept.index(layer)) for source, layer in pairs if layer in kept
        ]
    if targets := outer.get("spatial_target_layers"):
        outer["spatial_target_layers"] = [kept.index(layer) for layer in targets if layer in kept]
