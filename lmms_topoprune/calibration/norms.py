"""Norms of tokens at every state: the largest, the median, and the layers that write massive activations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

JUMP = 10.0
"""A layer behind which the largest norm over the median is more than so many times what it was before."""
PER_OCTAVE, LOWEST, OCTAVES = 64, -40, 100  # of the histogram; a median is told to about one percent


@dataclass(frozen=True)
class TokenNorms:
    """Euclidean norms of the residual states of all tokens that are not padding.

    Attributes:
        largest: (S,), of any token at each state.
        median: (S,), over all tokens, to about one percent.
    """

    largest: NDArray[np.float64]
    median: NDArray[np.float64]

    @property
    def massive(self) -> tuple[int, ...]:
        """Layers that write massive activations (Sun et al. 2024, arXiv 2402.17762).

        Behind such a layer the norm of some token, mostly the first, is thousands of times the norm of a
        typical one; without it the attention sinks of all later layers are gone.
        """
        ratio = self.largest / np.maximum(self.median, np.finfo(np.float64).tiny)
        return tuple(int(layer) for layer in np.flatnonzero(ratio[1:] > JUMP * ratio[:-1]))


@dataclass(frozen=True)
class NormCounts:
    """What a pass counts, batch by batch and process by process.

    Attributes:
        largest: (S,) float64.
        counts: (S, bins) int64, of norms on a logarithmic scale.
    """

    largest: NDArray[np.float64]
    counts: NDArray[np.int64]

    @classmethod
    def none(cls, states: int) -> NormCounts:
        return cls(np.zeros(states), np.zeros((states, PER_OCTAVE * OCTAVES), np.int64))

    def __add__(self, other: NormCounts) -> NormCounts:
        return NormCounts(np.maximum(self.largest, other.largest), self.counts + other.counts)

    def summary(self) -> TokenNorms:
        middle = (self.counts.cumsum(1) * 2 >= self.counts.sum(1, keepdims=True)).argmax(1)
        return TokenNorms(self.largest, np.exp2((middle + 0.5) / PER_OCTAVE + LOWEST))


def count_norms(hidden: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest norm and the histogram (bins,) of hidden states (B, T, d) where the mask (B, T) is set."""
    norms = torch.linalg.vector_norm(hidden, dim=-1, dtype=torch.float32)[mask]
    places = ((norms.log2() - LOWEST) * PER_OCTAVE).clamp(0, PER_OCTAVE * OCTAVES - 1).nan_to_num(0)
    counts = torch.bincount(places.long(), minlength=PER_OCTAVE * OCTAVES)
    return norms.max() if norms.numel() else norms.new_zeros(()), counts


def together(found: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> NormCounts:
    """One batch's norms of all states, on the CPU."""
    largest = np.array([float(each[0]) for each in found])
    return NormCounts(largest, np.stack([each[1].cpu().numpy() for each in found]))
