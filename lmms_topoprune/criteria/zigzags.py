"""Both zigzags over depth together: a layer goes that neither misses.

Intersections follow which tokens are neighbors of which (cosine), unions where the cloud as a whole goes
(Euclidean). Both are averaged over three k, since none is best everywhere. The combination by rank is this
project's own.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lmms_topoprune.calibration.states import HiddenStates
from lmms_topoprune.criteria import intersections, unions
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.registry import criterion
from lmms_topoprune.selection import Floats, LayerScores, PairScores, layer_values


@criterion(
    "zigzags",
    summary="both zigzags of token clouds, by mean rank",
    builds_on=(intersections.score, unions.score),
    parameters=("k", "dimension"),
    through=("intersections", "unions"),
    selection="rank",
    defaults={**unions.TOKENS, "k": "7+10+15"},
)
def score(states: HiddenStates, options: PruningOptions) -> LayerScores:
    """The mean of a layer's ranks by both; the higher, the less both miss it."""
    one = intersections.score(states, replace(options, metric="cosine"))
    other = unions.score(states, replace(options, metric="euclidean"))
    return LayerScores(mean_rank(one, other), "zigzags", (*one.barcodes, *other.barcodes))


def mean_rank(*scores: LayerScores | PairScores) -> Floats:
    """(L,): the mean over the scores of each layer's rank."""
    return np.asarray(np.mean([_ranks(layer_values(one)) for one in scores], axis=0))


def _ranks(values: Floats) -> Floats:
    """(L,): 0 for the lowest value to L - 1 for the highest; equal values share their mean rank."""
    below = (values[:, None] > values).sum(1)
    return np.asarray(below + ((values[:, None] == values).sum(1) - 1) / 2)
