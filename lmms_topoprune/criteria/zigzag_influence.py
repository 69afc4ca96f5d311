"""Shape and place: a layer goes that neither the zigzag of token clouds nor block influence misses.

The zigzag through intersections follows which tokens stay neighbors of which, and is blind to a cloud that
turns as a whole; block influence (Men et al., arXiv 2403.03853) sees every token turn, and nothing of how
they lie to each other. The combination by rank is this project's own.
"""

from __future__ import annotations

from dataclasses import replace

from lmms_topoprune.calibration.states import HiddenStates, TokenSums
from lmms_topoprune.criteria import block_influence, intersections
from lmms_topoprune.criteria.unions import TOKENS
from lmms_topoprune.criteria.zigzags import mean_rank
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.registry import criterion
from lmms_topoprune.selection import LayerScores


@criterion(
    "zigzag_influence",
    summary="zigzag and block influence, by mean rank",
    builds_on=(intersections.score, block_influence.score),
    sums=("token_cosine",),
    parameters=("k", "dimension"),
    selection="rank",
    defaults={**TOKENS, "k": "7+10+15"},
)
def score(states: HiddenStates, sums: TokenSums, options: PruningOptions) -> LayerScores:
    """The mean of a layer's ranks by both; the higher, the less both miss it."""
    shape = intersections.score(states, replace(options, metric="cosine"))
    place = block_influence.score(sums)
    return LayerScores(mean_rank(shape, place), "zigzag_influence", shape.barcodes)


settled = replace(
    score,
    name="zigzag_trials",
    summary="zigzag_influence, settled by trials",
    defaults={**score.defaults, "trials": 32},
)
