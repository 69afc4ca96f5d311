"""Layers chosen by their place alone: the deepest ones, or evenly spaced ones."""

from __future__ import annotations

import numpy as np

from lmms_topoprune.calibration.states import DecoderLayers
from lmms_topoprune.errors import InputError
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.registry import criterion
from lmms_topoprune.selection import LayerScores


@criterion("random", summary="a random order", state="none", parameters=("seed",))
def score(layers: DecoderLayers, options: PruningOptions) -> LayerScores:
    """A random order; one seed gives nested drops for growing sparsity."""
    order = np.random.default_rng(options.seed).permutation(layers.count)
    return LayerScores(order.astype(float), "random")


@criterion(
    "last_n",
    summary="the deepest layers",
    paper="Gromov et al., The Unreasonable Ineffectiveness of the Deeper Layers, ICLR 2025",
    address="https://arxiv.org/abs/2403.17887",
    state="none",
)
def last_n(layers: DecoderLayers) -> LayerScores:
    """The deepest layers first; with protect_last=1 this is the simple rule of Gromov et al.

    "The Unreasonable Ineffectiveness of the Deeper Layers" (arXiv 2403.17887), section 4.4.
    """
    return LayerScores(np.arange(layers.count, dtype=float), "last_n")


@criterion(
    "uniform",
    summary="evenly spaced layers",
    paper="Fan et al., Reducing Transformer Depth on Demand with Structured Dropout",
    address="https://arxiv.org/abs/1909.11556",
    state="none",
    parameters=("sparsity", "protect_first", "protect_last"),
)
def uniform(layers: DecoderLayers, options: PruningOptions) -> LayerScores:
    """1 for evenly spaced layers among those that may be dropped, 0 for the others.

    Every-other-layer dropping as in Fan et al., "Reducing Transformer Depth on Demand with
    Structured Dropout" (arXiv 1909.11556), for any count.

    Raises:
        InputError: more layers are to be dropped than may be.
    """
    allowed = layers.droppable(options.protect_first, options.protect_last)
    count = options.drop_count(layers.count)
    if count > len(allowed):
        raise InputError(f"{count} layers are to be dropped, but only {len(allowed)} may be")
    values = np.zeros(layers.count)
    middles = (np.arange(count) + 0.5) * len(allowed) / max(count, 1)
    values[[allowed[int(m)] for m in middles]] = 1
    return LayerScores(values, "uniform")
