"""What a calibration pass found, as criteria read it: points of every state, and means over all tokens."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from lmms_topoprune.errors import InputError

if TYPE_CHECKING:
    import torch

Derived = TypeVar("Derived")


@dataclass(eq=False)
class HiddenStates:
    """The same N points at every state of a decoder with L layers.

    "residual": state l is the input of layer l, state L the output of the last layer. "norm": state l is
    normalized between attention and feed-forward part of layer l, state L behind the final norm.

    Attributes:
        name: "residual" or "norm".
        values: (L + 1, N, d) in the model's precision, on the CPU.
        shared_ks: (metric, dimension) -> all k that any criterion is going to ask for, so that distances
            are computed once.
        reused_seconds: what was derived before would have taken so long again.
    """

    name: str
    values: torch.Tensor
    shared_ks: Mapping[tuple[str, int], Sequence[int]] = field(default_factory=dict)
    reused_seconds: float = 0.0
    _derived: dict[Any, tuple[Any, float]] = field(default_factory=dict, repr=False)

    @cached_property
    def points(self) -> NDArray[np.float32]:
        """(L + 1, N, d) as float32."""
        return self.values.float().numpy()

    @property
    def layers(self) -> int:
        return len(self.values) - 1

    def derived(
        self,
        asked: Sequence[Hashable],
        others: Sequence[Hashable],
        make: Callable[[list[Any]], Sequence[Derived]],
    ) -> dict[Any, Derived]:
        """What is derived from these points under each of some keys, computed once for all that ask.

        Args:
            asked: keys that the caller needs.
            others: keys that others are going to need, made along with a missing one.
            make: takes keys and returns what stands for each.
        """
        self.reused_seconds += sum(self._derived[key][1] for key in asked if key in self._derived)
        if any(key not in self._derived for key in asked):
            missing = [key for key in dict.fromkeys([*asked, *others]) if key not in self._derived]
            start = time.perf_counter()
            made = make(missing)
            seconds = (time.perf_counter() - start) / len(missing)
            self._derived |= {key: (value, seconds) for key, value in zip(missing, made, strict=True)}
            self.reused_seconds += seconds * sum(key not in asked for key in missing)
        return {key: self._derived[key][0] for key in asked}


@dataclass(frozen=True)
class TokenSums:
    """Means over all tokens that are not padding.

    Attributes:
        means: "token_cosine" or "relative_magnitude" -> (L,).
        tokens: how many tokens these are means over.
    """

    means: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    tokens: int = 0

    def only(self, names: Collection[str]) -> TokenSums:
        """Those of these names."""
        return TokenSums({name: value for name, value in self.means.items() if name in names}, self.tokens)

    @property
    def token_cosine(self) -> NDArray[np.float64]:
        """(L,): the cosine of a layer's input and output."""
        return self._mean("token_cosine")

    @property
    def relative_magnitude(self) -> NDArray[np.float64]:
        """(L,): |output - input| / |output| of a layer."""
        return self._mean("relative_magnitude")

    def _mean(self, name: str) -> NDArray[np.float64]:
        if name not in self.means:
            raise InputError(f"{name} was not collected in this calibration")
        return self.means[name]


@dataclass(frozen=True)
class DecoderLayers:
    """How many decoder layers a model has, and which of them cannot be deleted."""

    count: int
    undeletable: frozenset[int] = frozenset()

    def droppable(self, protect_first: int, protect_last: int) -> list[int]:
        """The layers that are neither protected nor undeletable, ascending."""
        inner = range(protect_first, self.count - protect_last)
        return [layer for layer in inner if layer not in self.undeletable]
