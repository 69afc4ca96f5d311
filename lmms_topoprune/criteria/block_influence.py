"""Block influence: how far a layer turns a token on average.

Men et al., "ShortGPT: Layers in Large Language Models are More Redundant Than You Expect"
(arXiv 2403.03853).
"""

from __future__ import annotations

from lmms_topoprune.calibration.states import TokenSums
from lmms_topoprune.registry import criterion
from lmms_topoprune.selection import LayerScores


@criterion(
    "block_influence",
    summary="cosine of input and output over all tokens",
    paper="Men et al., ShortGPT: Layers in Large Language Models are More Redundant Than You Expect",
    address="https://arxiv.org/abs/2403.03853",
    state="none",
    sums=("token_cosine",),
)
def score(sums: TokenSums) -> LayerScores:
    """-BI, where BI = 1 - mean over all tokens of cos(layer input, layer output)."""
    return LayerScores(sums.token_cosine - 1, "block_influence")
