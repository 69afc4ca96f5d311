"""Output change: how far the decoder's output turns when a layer is missing.

Zhang et al., "FinerCut: Finer-grained Interpretable Layer Pruning for Large Language Models"
(arXiv 2405.18218), here for whole layers, with the cosine of the final hidden states.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lmms_topoprune._util.progress import progress_bar
from lmms_topoprune.calibration.states import DecoderLayers
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.registry import criterion
from lmms_topoprune.selection import LayerScores

if TYPE_CHECKING:
    from lmms_topoprune.calibration.loss import LossOracle


@criterion(
    "output_change",
    summary="change of the output without a layer",
    paper="Zhang et al., FinerCut: Finer-grained Interpretable Layer Pruning for Large Language Models",
    address="https://arxiv.org/abs/2405.18218",
    state="none",
    loss=True,
    parameters=(),
    defaults={"samples": 64},
)
def score(loss: LossOracle, layers: DecoderLayers) -> LayerScores:
    """The mean over tokens of the cosine of the output with and without each layer alone."""
    everything = range(layers.count)
    with progress_bar("output change", len(loss.texts) * layers.count, loss.progress) as advance:
        found = loss.output_cosine((), everything, advance)
    return LayerScores(np.array([found[layer] for layer in everything]), "output_change")


@criterion(
    "output_change_greedy",
    summary="the same, one layer after the other",
    paper="Zhang et al., FinerCut: Finer-grained Interpretable Layer Pruning for Large Language Models",
    address="https://arxiv.org/abs/2405.18218",
    state="none",
    loss=True,
    parameters=("sparsity", "protect_first", "protect_last"),
    defaults={"samples": 64},
)
def stepwise(loss: LossOracle, layers: DecoderLayers, options: PruningOptions) -> LayerScores:
    """L for the layer whose loss turns the output least, L - 1 for the next after it is gone, and so on."""
    left = layers.droppable(options.protect_first, options.protect_last)
    count = min(options.drop_count(layers.count), len(left))
    values, removed = np.zeros(layers.count), list[int]()
    total = len(loss.texts) * sum(len(left) - step for step in range(count))
    with progress_bar("output change", total, loss.progress) as advance:
        for step in range(count):
            found = loss.output_cosine(removed, left, advance)
            removed.append(max(left, key=found.__getitem__))
            left.remove(removed[-1])
            values[removed[-1]] = layers.count - step
    return LayerScores(values, "output_change_greedy")
