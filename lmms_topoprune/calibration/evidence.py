"""What a criterion may look at: the states, running sums and, where it must, the model itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from lmms_topoprune.errors import InputError

if TYPE_CHECKING:
    import torch

    from lmms_topoprune.calibration.likelihood import Likelihood


@dataclass
class Evidence:
    """The outcome of one calibration pass over N samples through L decoder layers.

    Attributes:
        layers: L.
        states: "residual" and/or "norm" -> tensor (L + 1, N, d) in the model's precision.
        sums: "token_cosine", "relative_magnitude", ... -> (L,), means over all non-padding tokens.
        tokens: how many tokens the sums are means over.
        calibration: what the plan records about the calibration set.
        forbidden: layers that cannot be deleted.
        make_likelihood: makes the texts whose loss Taylor and greedy perplexity need; None without a model.
        progress: show bars during long scoring.
        spared_seconds: what scoring again with this evidence did not have to spend again.
    """

    layers: int
    states: Mapping[str, torch.Tensor] = field(default_factory=dict)
    sums: Mapping[str, np.ndarray] = field(default_factory=dict)
    tokens: int = 0
    calibration: Mapping[str, Any] = field(default_factory=dict)
    forbidden: frozenset[int] = frozenset()
    make_likelihood: Callable[[], Likelihood] | None = None
    progress: bool = False
    spared_seconds: float = 0.0

    def state(self, name: str) -> np.ndarray:
        """The states (L + 1, N, d) as float32."""
        if name not in self.states:
            raise InputError(
                f"state is {name!r}; kept in this calibration: {', '.join(self.states) or 'none'}"
            )
        return self.states[name].float().numpy()

    @property
    def residual(self) -> np.ndarray:
        """(L + 1, N, d): state l is the input of layer l, state L the output of the last layer."""
        return self.state("residual")

    @property
    def norm(self) -> np.ndarray:
        """(L + 1, N, d): state l is normalized between attention and feed-forward part of layer l."""
        return self.state("norm")

    @property
    def token_cosine(self) -> np.ndarray:
        """(L,): mean over all non-padding tokens of the cosine of a layer's input and output."""
        return self._sum("token_cosine")

    @property
    def relative_magnitude(self) -> np.ndarray:
        """(L,): mean over all non-padding tokens of |output - input| / |output|."""
        return self._sum("relative_magnitude")

    def _sum(self, name: str) -> np.ndarray:
        if name not in self.sums:
            raise InputError(f"{name} was not collected in this calibration")
        return self.sums[name]

    @cached_property
    def likelihood(self) -> Likelihood:
        """The calibration texts and the model's loss on them."""
        if self.make_likelihood is None:
            raise InputError("this criterion needs the model itself, not only its hidden states")
        return self.make_likelihood()
