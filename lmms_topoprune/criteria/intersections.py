"""Topology through intersections, on a cloud of tokens: `topology` with other points and another metric."""

from __future__ import annotations

from dataclasses import replace

from lmms_topoprune.criteria.topology import pairwise
from lmms_topoprune.criteria.unions import TOKENS

score = replace(
    pairwise,
    name="intersections",
    summary="loops of token clouds through intersections",
    defaults={**TOKENS, "metric": "cosine"},
)
