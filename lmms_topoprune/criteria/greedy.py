"""Greedy perplexity: remove, one after the other, the layer that the loss misses least.

Song et al., "SLEB: Streamlining LLMs through Redundancy Verification and Elimination of Transformer
Blocks", ICML 2024 (arXiv 2402.09025), algorithm 1.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from lmms_topoprune._util.progress import progress_bar
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.registry import criterion
from lmms_topoprune.selection import LayerScores

if TYPE_CHECKING:
    from lmms_topoprune.calibration.loss import LossOracle
    from lmms_topoprune.calibration.states import DecoderLayers


@criterion(
    "greedy",
    summary="the layer that the loss misses least, step by step",
    paper="Song et al., SLEB: Streamlining LLMs through Redundancy Verification and Elimination, ICML 2024",
    address="https://arxiv.org/abs/2402.09025",
    state="none",
    loss=True,
    parameters=("sparsity", "protect_first", "protect_last"),
    defaults={"samples": 64},
)
def score(loss: LossOracle, layers: DecoderLayers, options: PruningOptions) -> LayerScores:
    """L for the layer removed first, L - 1 for the next, 0 for those that stay.

    Every step measures the loss without each remaining layer: sparsity * L rounds of L passes over
    the calibration texts, of which about half has to be computed. The order is nested, so a larger
    sparsity holds the smaller ones.
    """
    candidates = layers.droppable(options.protect_first, options.protect_last)
    count = min(options.drop_count(layers.count), len(candidates))
    values = np.zeros(layers.count)
    removed: list[int] = []
    total = len(loss.texts) * sum(len(candidates) - step for step in range(count))
    with progress_bar("greedy perplexity", total, loss.progress) as advance:
        for step in range(count):
            left = [layer for layer in candidates if layer not in removed]
            losses = loss.without_one_more(removed, left, advance)
            # A model that breaks down counts as the worst.
            finite = {layer: v if math.isfinite(v) else math.inf for layer, v in losses.items()}
            removed.append(min(left, key=finite.__getitem__))
            values[removed[-1]] = layers.count - step
    return LayerScores(values, "greedy")
