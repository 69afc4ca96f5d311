"""Sums around cuts, from one pass through the dense model.

No sequence is stored: of each batch only sums over its tokens are kept. Padding never enters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from lmms_topoprune.calibration.decoder import Decoder, StopForward, hooked
from lmms_topoprune.calibration.tokens import Tokens
from lmms_topoprune.repair.weights import Projection


@dataclass(frozen=True)
class CutSums:
    """Sums over tokens; M is what the projection before the cut adds, D what the deleted block adds.

    Attributes:
        before, after: sums of |hidden states| (d,) before and behind the block, float64.
        change: sum of |D|^2.
        gram, cross: M'M and M'D (d, d); None where no projection was given.
    """

    before: torch.Tensor
    after: torch.Tensor
    change: torch.Tensor
    gram: torch.Tensor | None = None
    cross: torch.Tensor | None = None

    def __add__(self, other: CutSums) -> CutSums:
        mine, others = self._given(), other._given()
        return CutSums(**{name: value + others[name] for name, value in mine.items()})

    def on_cpu(self) -> CutSums:
        return CutSums(**{name: value.cpu() for name, value in self._given().items()})

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(value.nbytes for value in self._given().values())

    @staticmethod
    def size_of(width: int, *, projected: bool) -> int:
        """The same for hidden states of that width, before there are any sums."""
        return 8 * (2 * width + 1 + (2 * width**2 if projected else 0))

    def _given(self) -> dict[str, torch.Tensor]:
        return {name: value for name, value in vars(self).items() if value is not None}


class CutRecorder:
    """Listens to a decoder and sums what happens in blocks of its layers.

    Args:
        decoder: of the dense model.
        blocks: runs of layers, which may overlap.
        projections: the one before each block; None for the sums of |hidden states| alone.

    Attributes:
        totals: the sums of each block.
    """

    def __init__(
        self, decoder: Decoder, blocks: Sequence[range], projections: Mapping[range, Projection] | None = None
    ) -> None:
        self.decoder, self.blocks, self.projections = decoder, list(blocks), projections or {}
        self.totals: dict[range, CutSums] = {}

    def listening(self) -> AbstractContextManager[None]:
        """Hooks are in place inside, and gone after."""
        return hooked(self._hooks())

    def _hooks(self) -> Iterator[RemovableHandle]:
        for block in self.blocks:
            first, last = self.decoder.layers[block.start], self.decoder.layers[block.stop - 1]
            yield first.register_forward_pre_hook(self._entering(block), with_kwargs=True)
            yield last.register_forward_hook(self._leaving(block))
            if block in self.projections:
                yield self.projections[block].module.register_forward_hook(self._adding(block))

    def start(self, tokens: Tokens, indices: Sequence[int]) -> None:
        """Forget an unfinished batch and expect one with these tokens."""
        self._tokens = tokens
        self._before: dict[range, torch.Tensor] = {}
        self._added: dict[range, torch.Tensor] = {}
        self._found: dict[range, CutSums] = {}

    def finish(self) -> None:
        """Add the batch's sums to the totals."""
        for block, sums in self._found.items():
            self.totals[block] = self.totals[block] + sums if block in self.totals else sums

    def _entering(self, block: range) -> Any:
        def hook(_: nn.Module, args: Any, kwargs: Any) -> None:
            self._before[block] = self.decoder.hidden(args[0] if args else kwargs["hidden_states"])

        return hook

    def _adding(self, block: range) -> Any:
        def hook(_: nn.Module, args: Any, output: torch.Tensor) -> None:
            self._added[block] = output

        return hook

    def _leaving(self, block: range) -> Any:
        def hook(_: nn.Module, args: Any, output: Any) -> None:
            self._found[block] = self._sums(block, self.decoder.hidden(output))
            if len(self._found) == len(self.blocks):  # several may end with the same layer
                raise StopForward

        return hook

    def _sums(self, block: range, after: torch.Tensor) -> CutSums:
        before = self._before.pop(block)
        mask = self._tokens.fitted(before).mask
        shape = before.shape
        before, after = exact(before[mask]), exact(after.to(before.device)[mask])
        missing = after - before
        sums = CutSums(before.abs().sum(0), after.abs().sum(0), missing.square().sum())
        if block not in self.projections:
            return sums
        added = self._added.pop(block).reshape(shape).to(mask.device)[mask]
        added = exact(added) * self.projections[block].factor
        return CutSums(sums.before, sums.after, sums.change, added.T @ added, added.T @ missing)


Kind = tuple[str | None, bool]
"""The fingerprint of the calibration set, and whether the projection before each cut takes part."""


@dataclass
class KnownSums:
    """What passes through one dense model found, for repairs that are still to come.

    Attributes:
        limit: bytes of sums that are kept, unless a single repair needs more.
        announced: cuts that will be asked for.
        sums: by kind and cut, what was asked for last at the end.
        projections: the last linear map of a layer, by its number.
        passes: how many passes were run over a calibration set.
    """

    limit: int = 2 * 2**30
    announced: dict[Kind, list[range]] = field(default_factory=dict)
    sums: dict[tuple[str | None, bool, range], CutSums] = field(default_factory=dict)
    projections: dict[int, Projection] = field(default_factory=dict)
    passes: int = 0

    def announce(self, kind: Kind, cuts: Sequence[range]) -> None:
        """Say which cuts will be asked for, so that one pass serves many repairs."""
        mine = self.announced.setdefault(kind, [])
        mine += [
            cut for cut in self.missing(kind, cuts) if cut not in mine and not (kind[1] and cut.start == 0)
        ]

    def missing(self, kind: Kind, cuts: Sequence[range]) -> list[range]:
        """Those that are not known; the others are the last to be forgotten from now on."""
        for key in [(*kind, cut) for cut in cuts if (*kind, cut) in self.sums]:
            self.sums[key] = self.sums.pop(key)
        return [cut for cut in cuts if (*kind, cut) not in self.sums]

    def others(self, kind: Kind, cuts: Sequence[range], size: int) -> list[range]:
        """Cuts that were announced besides and are not known yet, of `size` bytes each."""
        waiting = [cut for cut in self.announced.get(kind, ()) if cut not in cuts]
        waiting = [cut for cut in waiting if (*kind, cut) not in self.sums]
        return waiting[: max(0, self.limit // size - len(cuts))]

    def put(self, kind: Kind, found: Mapping[range, CutSums], needed: Sequence[range] = ()) -> None:
        """Keep what a pass found; above the limit the oldest are forgotten, but not what is `needed` now."""
        self.passes += 1
        self.sums |= {(*kind, cut): sums for cut, sums in found.items()}
        self.announced[kind] = [cut for cut in self.announced.get(kind, ()) if cut not in found]
        excess = sum(sums.size for sums in self.sums.values()) - self.limit
        stays = {(*kind, cut) for cut in needed}
        for key in [key for key in self.sums if key not in stays]:
            if excess <= 0:
                break
            excess -= self.sums.pop(key).size


def exact(values: torch.Tensor) -> torch.Tensor:
    """In float64, which Apple's GPUs do not have."""
    return (values.cpu() if values.device.type == "mps" else values).double()
