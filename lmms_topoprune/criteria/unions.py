"""Topology through unions: how much of the shape at state i is carried over to state j.

The zigzag K(X_0) < K(X_0 u X_1) > K(X_1) < ... of Carlsson and de Silva, "Zigzag Persistence", Foundations of
Computational Mathematics 2010 (arXiv 0812.0197), section 1.2, over the depth of a model: a token at one state
and the same token at the next are two points of one space. Clouds that moved apart share no edges, so a layer
that shifts, turns or stretches the cloud is seen, to which intersections of label-matched graphs are blind.
The pair score is this project's own.
"""

from __future__ import annotations

import numpy as np

from lmms_topoprune.calibration.states import HiddenStates
from lmms_topoprune.criteria.topology import barcodes, for_report
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.registry import criterion
from lmms_topoprune.selection import PairScores
from lmms_topoprune.topology import jaccard

TOKENS = {"points": "tokens", "k": "10", "protect_massive": True}


@criterion(
    "unions",
    summary="loops of token clouds through unions",
    paper="Carlsson and de Silva, Zigzag Persistence, Foundations of Computational Mathematics 2010",
    address="https://arxiv.org/abs/0812.0197",
    parameters=("k", "dimension", "metric"),
    through=("unions",),
    selection="rank",
    defaults=TOKENS,
)
def score(states: HiddenStates, options: PruningOptions) -> PairScores:
    """J_p(i, j) of the zigzag through unions of neighboring states; the mean over several k."""
    found = barcodes(states, options, through="unions")
    values = np.mean([jaccard(barcode, options.dimension) for barcode in found.values()], axis=0)
    return PairScores(values, "unions", for_report(found, options))
