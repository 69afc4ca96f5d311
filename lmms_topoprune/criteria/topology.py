"""Pairwise topological Jaccard: how much of the shape at state i is still the shape at state j.

The zigzag barcode is that of Gardinazzi et al., "Persistent Topological Features in Large Language
Models", ICML 2025 (arXiv 2410.11042); the pairwise score is this project's own.
"""

from __future__ import annotations

import numpy as np

from lmms_topoprune.criteria.evidence import Evidence
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.selection import PairScores
from lmms_topoprune.topology import jaccard, zigzag_barcode


def pairwise(evidence: Evidence, options: PruningOptions) -> PairScores:
    """J_p(i, j), the bars alive at both states over the bars alive at either; the mean over several k."""
    states = evidence.state(options.state)
    return PairScores(np.mean([jaccard_of(states, k, options) for k in options.ks], axis=0), "topology")


def jaccard_of(states: np.ndarray, k: int, options: PruningOptions) -> np.ndarray:
    """(S, S) for states (S, N, d)."""
    barcode = zigzag_barcode(states, k=k, metric=options.metric, dimensions=(options.dimension,))
    return jaccard(barcode, options.dimension)
