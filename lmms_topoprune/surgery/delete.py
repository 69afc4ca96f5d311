"""Delete decoder layers in place, and undo it.

A deletion is planned completely before the model is touched. The edits come from two meta
models (meta_model.py): whatever differs between the models that transformers builds from the dense and from
the pruned configuration is what has to change, and if a kept layer would differ, no configuration can express
the deletion and it is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from operator import index
from types import TracebackType
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from lmms_topoprune.errors import SurgeryError, shown
from lmms_topoprune.plan import format_layers
from lmms_topoprune.surgery.dense_model import DenseModel
from lmms_topoprune.surgery.edits import Edit, apply_edits, plan_edits, set_to
from lmms_topoprune.surgery.fingerprint import identifying_config
from lmms_topoprune.surgery.locate import DecoderLocation, locate
from lmms_topoprune.surgery.special_layers import check_cache, check_donors, must_stay


class Deletion:
    """Deleted layers of one model, and the way back.

    Attributes:
        model: the pruned model, changed in place.
        dropped: deleted layers, ascending, counted from 0 in the dense model.
        kept: layers that stayed, counted likewise; kept[i] is now layer i.
        path: name of the layer list in the model.
    """

    def __init__(
        self, model: PreTrainedModel, location: DecoderLocation, kept: tuple[int, ...], edits: list[Edit]
    ) -> None:
        layers = range(len(location.layers))
        self.model, self.path, self.kept = model, location.path, kept
        self.dropped = tuple(layer for layer in layers if layer not in set(kept))
        self._undo = apply_edits(edits)
        self._list, self._after = location.layers, list(location.layers)

    def restore(self) -> None:
        """Put the layers back; the dense logits are bit-equal to those before. Calling it again does nothing.

        Raises:
            SurgeryError: a later deletion of the same model is still in force.
        """
        if self._undo and [id(layer) for layer in self._list] != [id(layer) for layer in self._after]:
            raise SurgeryError(
                "the layers were changed after this deletion; restore the later deletion first"
            )
        while self._undo:
            self._undo.pop()()

    @contextmanager
    def undone(self) -> Iterator[None]:
        """Inside, the model is the dense one, of the same weights; after, the pruned one again."""
        redo = [self._undo.pop()() for _ in range(len(self._undo))]
        try:
            yield
        finally:
            self._undo += [redo.pop()() for _ in range(len(redo))]

    def attach(
        self, weights: Mapping[nn.Module, Mapping[str, nn.Parameter]], name: str, record: Mapping[str, Any]
    ) -> None:
        """Give the pruned model new weights, and note why under `name` on it; restore() undoes both.

        Args:
            weights: by module and name; the old parameters are kept as they are, not copied.
            name: of an attribute of the model.
            record: any JSON value.
        """
        new = [
            set_to(module._parameters, key, parameter)
            for module, parameters in weights.items()
            for key, parameter in parameters.items()
        ]
        self._undo += apply_edits([*new, set_to(vars(self.model), name, dict(record))])

    def __enter__(self) -> Deletion:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.restore()

    def __repr__(self) -> str:
        state = "in force" if self._undo else "restored"
        return f"Deletion(dropped={self.dropped}, kept={len(self.kept)}, {state})"


def delete_layers(model: PreTrainedModel, layers: Iterable[int]) -> Deletion:
    """Delete decoder layers from a model in place, so that it is as good as if it had been built that way.

    No weight is copied, save for tensors with one block a layer (Gemma 3n and 4's per-layer embeddings),
    whose kept blocks are copied. Use the result as a context manager to restore at the end of a block.

    Args:
        model: any vision-language or language model of transformers.
        layers: layers to delete, counted from 0.

    Raises:
        SurgeryError: a layer does not exist or must stay (named, with the reason); nothing was changed.
    """
    location = locate(model)
    if not (dropped := _checked(layers, len(location.layers))):
        return Deletion(model, location, tuple(range(len(location.layers))), [])
    return PreparedDeletion.of(DenseModel.of(model, location), dropped).apply()


@dataclass(frozen=True)
class PreparedDeletion:
    """A deletion that was found possible.

    Attributes:
        dense: the model before it.
        pruned: the meta model after it.
        kept: layers that stay, ascending, counted from 0 in the dense model.
        edits: all that it changes in dense.model.
    """

    dense: DenseModel
    pruned: PreTrainedModel
    kept: tuple[int, ...]
    edits: list[Edit]

    @classmethod
    def of(cls, dense: DenseModel, dropped: Iterable[int]) -> PreparedDeletion:
        """
        Raises:
            SurgeryError: names the layer that does not exist or must stay, with the reason.
        """
        dropped = _checked(dropped, len(dense.layers))
        try:
            return _try(dense, dropped)
        except SurgeryError as error:
            raise SurgeryError(_refusal(dense, dropped, str(error))) from None

    def apply(self) -> Deletion:
        return Deletion(self.dense.model, self.dense.location, self.kept, self.edits)

    def apply_to(self, model: PreTrainedModel) -> Deletion:
        """The same deletion of a model of the same configuration; the meta models are built already."""
        if identifying_config(model.config) != identifying_config(self.dense.model.config):
            return delete_layers(model, set(range(len(self.dense.layers))) - set(self.kept))
        dense = DenseModel.of(model, locate(model), self.dense.meta_model)
        return Deletion(model, dense.location, self.kept, plan_edits(dense, self.pruned, self.kept))


def _try(dense: DenseModel, dropped: Collection[int]) -> PreparedDeletion:
    kept = _kept(dense, dropped)
    pruned = dense.pruned_meta_model(kept)
    return PreparedDeletion(dense, pruned, kept, plan_edits(dense, pruned, kept))


def _kept(dense: DenseModel, dropped: Collection[int]) -> tuple[int, ...]:
    """The other layers.

    Raises:
        SurgeryError: a forward pass or a cache singles a layer out by its number.
    """
    for layer, reason in must_stay(dense.model, len(dense.layers)).items():
        if layer in dropped:
            raise SurgeryError(reason)
    kept = tuple(layer for layer in range(len(dense.layers)) if layer not in dropped)
    check_cache(dense.text, kept)
    check_donors(dense.text, kept)
    return kept


def _refusal(dense: DenseModel, dropped: set[int], reason: str) -> str:
    """The message that names the layer to blame; all of them if each could go alone."""
    alone = {layer: found for layer in sorted(dropped) if (found := _reason(dense, {layer}))}
    who = f"layers {format_layers(dropped)} together"
    if alone:
        layer, reason = next(iter(alone.items()))
        who = f"layer {layer}"
    return f"{who} of {type(dense.model).__name__} cannot be deleted: {reason}"


def _checked(layers: Iterable[int], count: int) -> set[int]:
    try:
        dropped = {index(layer) for layer in layers}
    except TypeError:
        raise SurgeryError(
            f"layers is {shown(layers)}; allowed: whole numbers from 0 to {count - 1}"
        ) from None
    for layer in sorted(dropped):
        if not 0 <= layer < count:
            raise SurgeryError(f"layer {layer} does not exist; the model has layers 0 to {count - 1}")
    if len(dropped) == count:
        raise SurgeryError(f"all {count} layers would be deleted; at least one has to stay")
    return dropped


def undeletable(model: PreTrainedModel) -> dict[int, str]:
    """Layers that cannot be deleted, each with the reason.

    Every layer is tried alone on meta models; the first and the last stand for all of a decoder
    whose layers are alike.
    """
    return dict(_answers(DenseModel.of(model, locate(model))).alone)


def refusal(model: PreTrainedModel, layers: Iterable[int]) -> str | None:
    """Why these layers cannot be deleted together, or None; layers that each can go alone may not."""
    return refusals(model)(layers)


def refusals(model: PreTrainedModel) -> Callable[[Iterable[int]], str | None]:
    """`refusal` for many questions about a model that is not changed meanwhile: it is looked at once."""
    answers = _answers(DenseModel.of(model, locate(model)))

    def refused(layers: Iterable[int]) -> str | None:
        dropped = frozenset(_checked(layers, len(answers.dense.layers)))
        return answers.together(dropped) if dropped else None

    return refused


class _Answers:
    """What can be deleted from one meta model, found out once: a sweep asks for every plan.

    Attributes:
        dense: the meta model in the place of the model.
    """

    def __init__(self, dense: DenseModel) -> None:
        self.dense = dense
        self._together: dict[frozenset[int], str | None] = {}
        self._by_config: dict[str, str | None] = {}

    @cached_property
    def alone(self) -> dict[int, str]:
        count = len(self.dense.layers)
        if count == 1:
            return {0: "it is the only layer"}
        tried = (0, count - 1) if self.dense.layers_alike else range(count)
        found = {layer: reason for layer in tried if (reason := _reason(self.dense, {layer}))}
        if len(found) == len(tried) < count:
            found = dict.fromkeys(range(count), found[0])
        return dict(sorted({**found, **must_stay(self.dense.model, count)}.items()))

    def together(self, dropped: frozenset[int]) -> str | None:
        if dropped not in self._together:
            if len(self._together) >= _MOST_ANSWERS:
                self._together.clear()
            self._together[dropped] = self._find(dropped)
        return self._together[dropped]

    def _find(self, dropped: frozenset[int]) -> str | None:
        """Of layers that are alike it does not matter which go, once the configuration is the same."""
        if not self.dense.layers_alike:
            return _reason(self.dense, dropped)
        try:
            config = self.dense.pruned_config(_kept(self.dense, dropped))
        except SurgeryError as error:
            return str(error)
        text = json.dumps(config, sort_keys=True, default=repr)
        if text not in self._by_config:
            self._by_config[text] = _reason(self.dense, dropped)
        return self._by_config[text]


_MOST_ANSWERS = 10_000
_ANSWERS = "_topoprune_answers"


def _answers(dense: DenseModel) -> _Answers:
    """Those of the model's meta model, which carries them as long as it is remembered."""
    entries = vars(dense.meta_model)
    if _ANSWERS not in entries:
        entries[_ANSWERS] = _Answers(dense.without_weights())
    found: _Answers = entries[_ANSWERS]
    return found


def _reason(dense: DenseModel, dropped: Collection[int]) -> str | None:
    """Why these layers cannot be deleted, or None."""
    try:
        _try(dense, dropped)
    except SurgeryError as error:
        return str(error)
    return None
