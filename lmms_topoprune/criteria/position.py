"""Layers chosen by their place alone: the deepest ones, or evenly spaced ones."""

from __future__ import annotations

import numpy as np

from lmms_topoprune.criteria.evidence import Evidence
from lmms_topoprune.errors import InputError
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.registry import criterion
from lmms_topoprune.selection import LayerScores


@criterion(
    "last_n",
    summary="the deepest layers",
    paper="Gromov et al., The Unreasonable Ineffectiveness of the Deeper Layers, ICLR 2025",
    address="https://arxiv.org/abs/2403.17887",
    state="none",
    parameters=(),
)
def last_n(evidence: Evidence, options: PruningOptions) -> LayerScores:
    """The deepest layers first; with protect_last=1 this is the simple rule of Gromov et al.

    "The Unreasonable Ineffectiveness of the Deeper Layers" (arXiv 2403.17887), section 4.4.
    """
    return LayerScores(np.arange(evidence.layers, dtype=float), "last_n")


@criterion(
    "uniform",
    summary="evenly spaced layers",
    paper="Fan et al., Reducing Transformer Depth on Demand with Structured Dropout",
    address="https://arxiv.org/abs/1909.11556",
    state="none",
    parameters=("sparsity", "protect_first", "protect_last"),
)
def uniform(evidence: Evidence, options: PruningOptions) -> LayerScores:
    """1 for evenly spaced layers among those that may be dropped, 0 for the others.

    Every-other-layer dropping as in Fan et al., "Reducing Transformer Depth on Demand with
    Structured Dropout" (arXiv 1909.11556), for any count.
    """
    allowed = droppable(evidence, options)
    count = options.drop_count(evidence.layers)
    if count > len(allowed):
        raise InputError(f"{count} layers are to be dropped, but only {len(allowed)} may be")
    values = np.zeros(evidence.layers)
    middles = (np.arange(count) + 0.5) * len(allowed) / max(count, 1)
    values[[allowed[int(m)] for m in middles]] = 1
    return LayerScores(values, "uniform")


def droppable(evidence: Evidence, options: PruningOptions) -> list[int]:
    """The layers that are neither protected nor undeletable."""
    inner = range(options.protect_first, evidence.layers - options.protect_last)
    return [layer for layer in inner if layer not in evidence.forbidden]
