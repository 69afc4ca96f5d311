"""Relative magnitude: how large a layer's update is beside the stream it is added to.

Samragh et al., "Weight subcloning" (arXiv 2312.09299); a baseline in ShortGPT (arXiv 2403.03853).
"""

from __future__ import annotations

from lmms_topoprune.calibration.states import TokenSums
from lmms_topoprune.registry import criterion
from lmms_topoprune.selection import LayerScores


@criterion(
    "relative_magnitude",
    summary="size of a layer's update beside its output",
    paper="Samragh et al., Weight subcloning",
    address="https://arxiv.org/abs/2312.09299",
    state="none",
    sums=("relative_magnitude",),
)
def score(sums: TokenSums) -> LayerScores:
    """The negative mean over all tokens of |f(x)| / |x + f(x)|, where x + f(x) is the layer's output."""
    return LayerScores(-sums.relative_magnitude, "relative_magnitude")
