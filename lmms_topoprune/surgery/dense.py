"""A model before a deletion, and the weightless twins it is compared with."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from lmms_topoprune._util.signals import unmasked
from lmms_topoprune.errors import SurgeryError
from lmms_topoprune.surgery.differences import layer_changes
from lmms_topoprune.surgery.fields import prune_config
from lmms_topoprune.surgery.locate import Place
from lmms_topoprune.surgery.meta_model import build_twin, quietly


@dataclass(frozen=True)
class Dense:
    """A model before a deletion, its configuration as config.json holds it, and its weightless twin."""

    model: PreTrainedModel
    place: Place
    config: dict[str, Any]
    twin: PreTrainedModel

    @classmethod
    def of(cls, model: PreTrainedModel, place: Place, twin: PreTrainedModel | None = None) -> Dense:
        """Build the twin, unless there is one, and check that it is one.

        Raises:
            SurgeryError: the configuration does not build this model.
        """
        config = model.config.to_dict()
        twin = build_twin(model, config) if twin is None else twin
        built = layers_at(twin, place.path)
        if len(built) != len(place.layers):
            raise SurgeryError(
                f"{place.path} has {len(place.layers)} layers, but its configuration builds {len(built)}"
            )
        for number, (real, layer) in enumerate(zip(place.layers, built, strict=True)):
            if type(real) is not type(layer):
                kinds = f"a {type(real).__name__}, but its configuration builds a {type(layer).__name__}"
                raise SurgeryError(f"layer {number} is {kinds}; undo what wraps it first")
        return cls(model, place, config, twin)

    @property
    def text(self) -> dict[str, Any]:
        """The section of the configuration that describes the decoder."""
        return section(self.config, self.place.sections)

    @property
    def layers(self) -> nn.ModuleList:
        """The twin's decoder layers."""
        return layers_at(self.twin, self.place.path)

    def layers_alike(self) -> bool:
        """Whether all layers differ in nothing but their number."""
        first, *others = self.layers
        try:
            for number, other in enumerate(others, 1):
                list(layer_changes(first, other, {0: number}, None))
        except SurgeryError:
            return False
        return True

    def pruned_twin(self, kept: tuple[int, ...]) -> PreTrainedModel:
        """The twin of the pruned configuration.

        Of the fields that may count the layers the one that builds as many as are kept is taken.

        Raises:
            SurgeryError: the configuration class or the constructor objects, or no field is such a count.
        """
        problem = "no field of the configuration sets the number of layers"
        for count in self.place.counts:
            config = prune_config(self.config, self.place.sections, count, kept, len(self.place.layers))
            try:
                with unmasked():
                    self._check_kept(config)
                    twin = build_twin(self.model, config)
            except SurgeryError:
                raise
            except Exception as error:  # whatever a constructor may raise is the reason of the refusal
                problem = f"{type(error).__name__}: {' '.join(str(error).split())}"
                continue
            if len(layers_at(twin, self.place.path)) == len(kept):
                return twin
        raise SurgeryError(problem)

    def _check_kept(self, config: dict[str, Any]) -> None:
        """Refuse a configuration whose class rewrites a per-layer list (Gemma 4 forces the last type)."""
        wanted = section(config, self.place.sections)
        with quietly():
            found = section(
                type(self.model.config).from_dict(copy.deepcopy(config)).to_dict(), self.place.sections
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
