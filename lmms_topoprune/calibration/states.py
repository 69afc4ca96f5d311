"""What a calibration pass found, as criteria read it: points of every state, and means over all tokens."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from lmms_topoprune.errors import InputError

if TYPE_CHECKING:
    import torch

Derived = TypeVar("Derived")
Key = TypeVar("Key")


@dataclass(eq=False)
class HiddenStates:
    """The same N points at every state of a decoder with L layers.

    "residual": state l is the input of layer l, state L the output of the last layer. "norm": state l is
    normalized between attention and feed-forward part of layer l, state L behind the final norm.

    Attributes:
        name: "residual" or "norm".
        values: (L + 1, N, d) in the model's precision, on the CPU.
        shared_ks: (metric, zigzag through "intersections" or "unions") -> all k that any criterion is going
            to ask for, so that neighbors are searched once.
        reused_seconds: what was derived before would have taken so long again.
    """

    name: str
    values: torch.Tensor
    shared_ks: Mapping[tuple[str, str], Sequence[int]] = field(default_factory=dict)
    reused_seconds: float = 0.0
    _derived: dict[Any, tuple[Any, float]] = field(default_factory=dict, repr=False)

    @cached_property
    def points(self) -> NDArray[np.float32]:
        """(L + 1, N, d) as float32."""
        return self.values.float().numpy()

    @property
    def layers(self) -> int:
        return len(self.values) - 1

    def derived(self, key: Hashable, make: Callable[[], Derived]) -> Derived:
        """What `make` derives from these points, computed once for all that ask under the same key."""
        if key in self._derived:
            return cast(Derived, self.known(key))
        start = time.perf_counter()
        value = make()
        self._derived[key] = value, time.perf_counter() - start
        return value

    def known(self, key: Hashable) -> Any:
        """What was derived under that key before."""
        value, seconds = self._derived[key]
        self.reused_seconds += seconds
        return value

    def derived_under(self, kind: type[Key]) -> list[Key]:
        """The keys of this kind that something was derived under."""
        return [key for key in self._derived if isinstance(key, kind)]


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
