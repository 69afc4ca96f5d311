"""A model before a deletion, and the meta models it is compared with."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from lmms_topoprune._util.signals import errors_kept
from lmms_topoprune.errors import SurgeryError
from lmms_topoprune.surgery.locate import DecoderLocation
from lmms_topoprune.surgery.meta_model import build_meta_model, layer_changes, quietly, shared_tensors

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


@dataclass(frozen=True)
class DenseModel:
    """A model before a deletion, its configuration as config.json holds it, and its meta model."""

    model: PreTrainedModel
    location: DecoderLocation
    config: dict[str, Any]
    meta_model: PreTrainedModel

    @classmethod
    def of(
        cls, model: PreTrainedModel, location: DecoderLocation, meta_model: PreTrainedModel | None = None
    ) -> DenseModel:
        """Build the meta model, unless there is one, and check that it has the model's layers.

        Raises:
            SurgeryError: the configuration does not build this model.
        """
        config = model.config.to_dict()
        meta_model = build_meta_model(model, config) if meta_model is None else meta_model
        built = layers_at(meta_model, location.path)
        if len(built) != len(location.layers):
            found = f"{location.path} has {len(location.layers)} layers"
            raise SurgeryError(f"{found}, but its configuration builds {len(built)}")
        for number, (real, layer) in enumerate(zip(location.layers, built, strict=True)):
            if type(real) is not type(layer):
                kinds = f"a {type(real).__name__}, but its configuration builds a {type(layer).__name__}"
                raise SurgeryError(f"layer {number} is {kinds}; undo what wraps it first")
        return cls(model, location, config, meta_model)

    @property
    def text(self) -> dict[str, Any]:
        """The section of the configuration that describes the decoder."""
        return section(self.config, self.location.sections)

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder layers of the meta model."""
        return layers_at(self.meta_model, self.location.path)

    def without_weights(self) -> DenseModel:
        """The meta model in the place of the model: what is found out of it holds for every such model."""
        location = replace(self.location, layers=self.layers, config=self._section_object())
        return DenseModel(self.meta_model, location, self.config, self.meta_model)

    def _section_object(self) -> PreTrainedConfig:
        config = self.meta_model.config
        for key in self.location.sections:
            config = getattr(config, key)
        return config

    @cached_property
    def layers_alike(self) -> bool:
        """Whether all layers differ in nothing but their number, and share no weight."""
        first, *others = self.layers
        if any(self.location.path in name for group in self._shared for name in group):
            return False
        try:
            for number, other in enumerate(others, 1):
                list(layer_changes(first, other, {0: number}, None))
        except SurgeryError:
            return False
        return True

    @property
    def _shared(self) -> set[frozenset[str]]:
        return shared_tensors(self.meta_model, self.location.path, None)

    def pruned_config(self, kept: tuple[int, ...], count: str | None = None) -> dict[str, Any]:
        """The configuration of the pruned model, if the field `count` (the likeliest) counts the layers.

        Raises:
            SurgeryError: a kept layer reads the keys and values of one that goes.
        """
        count = count or self.location.counts[0]
        return prune_config(self.config, self.location.sections, count, kept, len(self.layers))

    def pruned_meta_model(self, kept: tuple[int, ...]) -> PreTrainedModel:
        """The meta model of the pruned configuration.

        Of the fields that may count the layers the one that builds as many as are kept is taken.

        Raises:
            SurgeryError: the configuration class or the constructor objects, or no field is such a count.
        """
        problem = "no field of the configuration sets the number of layers"
        for count in self.location.counts:
            config = self.pruned_config(kept, count)
            with errors_kept() as building:
                self._check_kept(config)
                built = build_meta_model(self.model, config)
                if len(layers_at(built, self.location.path)) == len(kept):
                    return built
            if isinstance(building.error, SurgeryError):
                raise building.error
            if building.error:  # whatever a constructor may raise is the reason of the refusal
                problem = f"{type(building.error).__name__}: {' '.join(str(building.error).split())}"
        raise SurgeryError(problem)

    def _check_kept(self, config: dict[str, Any]) -> None:
        """Refuse a configuration whose class rewrites a per-layer list (Gemma 4 forces the last type)."""
        wanted = section(config, self.location.sections)
        with quietly():
            found = section(
                type(self.model.config).from_dict(copy.deepcopy(config)).to_dict(), self.location.sections
            )
        for key, value in wanted.items():
            if isinstance(value, list) and list(found.get(key) or ()) != value:
                raise SurgeryError(f"the configuration class turns {key} {value} into {found.get(key)}")


def section(config: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """The part of a configuration to which `keys` lead."""
    for key in keys:
        config = config[key]
    return config


def layers_at(model: nn.Module, path: str) -> nn.ModuleList:
    """The module list at `path`; an empty one if there is none."""
    try:
        found = model.get_submodule(path)
    except AttributeError:
        return nn.ModuleList()
    return found if isinstance(found, nn.ModuleList) else nn.ModuleList()
