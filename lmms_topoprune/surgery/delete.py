"""Delete decoder layers in place, and undo it.

A deletion is planned completely before the model is touched. The plan comes from two weightless twins
(twin.py): whatever differs between the models that transformers builds from the dense and from the pruned
configuration is what has to change, and if a kept layer would differ, no configuration can express
the deletion and it is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from operator import index
from types import TracebackType

from transformers import PreTrainedModel

from lmms_topoprune.errors import SurgeryError, shown
from lmms_topoprune.plan import format_layers
from lmms_topoprune.surgery.changes import Change, apply_all
from lmms_topoprune.surgery.dense import Dense
from lmms_topoprune.surgery.exceptions import check_cache, check_donors, must_stay
from lmms_topoprune.surgery.fingerprint import essence
from lmms_topoprune.surgery.locate import Place, locate
from lmms_topoprune.surgery.prepare import prepare


class Deletion:
    """Deleted layers of one model, and the way back.

    Attributes:
        model: the pruned model, changed in place.
        dropped: deleted layers, ascending, counted from 0 in the dense model.
        kept: layers that stayed, counted likewise; kept[i] is now layer i.
        path: name of the layer list in the model.
    """

    def __init__(
        self, model: PreTrainedModel, place: Place, kept: tuple[int, ...], changes: list[Change]
    ) -> None:
        layers = range(len(place.layers))
        self.model, self.path, self.kept = model, place.path, kept
        self.dropped = tuple(layer for layer in layers if layer not in set(kept))
        self._undo = apply_all(changes)
        self._list, self._after = place.layers, list(place.layers)

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
    place = locate(model)
    if not (dropped := _checked(layers, len(place.layers))):
        return Deletion(model, place, tuple(range(len(place.layers))), [])
    return Possible.of(Dense.of(model, place), dropped).carry_out()


@dataclass(frozen=True)
class Possible:
    """A deletion that was found possible.

    Attributes:
        dense: the model before it.
        pruned: a weightless twin of the model after it.
        kept: layers that stay, ascending, counted from 0 in the dense model.
        changes: all that it changes in dense.model.
    """

    dense: Dense
    pruned: PreTrainedModel
    kept: tuple[int, ...]
    changes: list[Change]

    @classmethod
    def of(cls, dense: Dense, dropped: Iterable[int]) -> Possible:
        """
        Raises:
            SurgeryError: names the layer that does not exist or must stay, with the reason.
        """
        dropped = _checked(dropped, len(dense.layers))
        try:
            return _try(dense, dropped)
        except SurgeryError as error:
            raise SurgeryError(_refusal(dense, dropped, str(error))) from None

    def carry_out(self) -> Deletion:
        return Deletion(self.dense.model, self.dense.place, self.kept, self.changes)

    def carry_out_on(self, model: PreTrainedModel) -> Deletion:
        """The same deletion of a model of the same configuration; its twins are built already."""
        if essence(model.config) != essence(self.dense.model.config):
            return delete_layers(model, set(range(len(self.dense.layers))) - set(self.kept))
        dense = Dense.of(model, locate(model), self.dense.twin)
        return Deletion(model, dense.place, self.kept, prepare(dense, self.pruned, self.kept))


def _try(dense: Dense, dropped: Collection[int]) -> Possible:
    for layer, reason in must_stay(dense.model, len(dense.layers)).items():
        if layer in dropped:
            raise SurgeryError(reason)
    kept = tuple(layer for layer in range(len(dense.layers)) if layer not in dropped)
    check_cache(dense.text, kept)
    check_donors(dense.text, kept)
    pruned = dense.pruned_twin(kept)
    return Possible(dense, pruned, kept, prepare(dense, pruned, kept))


def _refusal(dense: Dense, dropped: set[int], reason: str) -> str:
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

    Every layer is tried alone on weightless twins; the first and the last stand for all of a decoder
    whose layers are alike.
    """
    place = locate(model)
    count = len(place.layers)
    if count == 1:
        return {0: "it is the only layer"}
    dense = Dense.of(model, place)
    tried = (0, count - 1) if dense.layers_alike() else range(count)
    found = {layer: reason for layer in tried if (reason := _reason(dense, {layer}))}
    if len(found) == len(tried) < count:
        found = dict.fromkeys(range(count), found[0])
    return dict(sorted({**found, **must_stay(model, count)}.items()))


def refusal(model: PreTrainedModel, layers: Iterable[int]) -> str | None:
    """Why these layers cannot be deleted together, or None; layers that each can go alone may not."""
    place = locate(model)
    dropped = _checked(layers, len(place.layers))
    return _reason(Dense.of(model, place), dropped) if dropped else None


def _reason(dense: Dense, dropped: Collection[int]) -> str | None:
    """Why these layers cannot be deleted, or None."""
    try:
        _try(dense, dropped)
    except SurgeryError as error:
        return str(error)
    return None
