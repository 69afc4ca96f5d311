"""A criterion turned round: the control that drops first what the criterion would keep longest."""

from __future__ import annotations

from lmms_topoprune.calibration.states import HiddenStates
from lmms_topoprune.criteria.topology import pairwise
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.selection import LayerScores, PairScores


def reverse(scores: LayerScores | PairScores) -> LayerScores | PairScores:
    """-s for scores of layers; 1 - s for similarities of states, which have to stay within 0..1."""
    name = f"reverse {scores.name}"
    if isinstance(scores, LayerScores):
        return LayerScores(-scores.values, name)
    return PairScores(1 - scores.values, name)


def score(states: HiddenStates, options: PruningOptions) -> LayerScores | PairScores:
    """Topology's pairwise rule turned round; "reverse:NAME" does the same to any criterion."""
    return reverse(pairwise(states, options))
