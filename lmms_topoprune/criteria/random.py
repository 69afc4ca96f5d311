"""Random layers: the baseline every criterion has to beat."""

from __future__ import annotations

import numpy as np

from lmms_topoprune.calibration.states import DecoderLayers
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.registry import criterion
from lmms_topoprune.selection import LayerScores


@criterion("random", summary="a random order", state="none", parameters=("seed",))
def score(layers: DecoderLayers, options: PruningOptions) -> LayerScores:
    """A random order; one seed gives nested drops for growing sparsity."""
    order = np.random.default_rng(options.seed).permutation(layers.count)
    return LayerScores(order.astype(float), "random")
