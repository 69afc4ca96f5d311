"""Greedy perplexity: remove, one after the other, the layer that the loss misses least.

Song et al., "SLEB: Streamlining LLMs through Redundancy Verification and Elimination of Transformer
Blocks", ICML 2024 (arXiv 2402.09025), algorithm 1.
"""

from __future__ import annotations

import math
import time

import numpy as np

from lmms_topoprune.calibration.progress import progress_bar
from lmms_topoprune.criteria.evidence import Evidence
from lmms_topoprune.criteria.position import droppable
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.selection import LayerScores
from lmms_topoprune.surgery import identity_layers


def score(evidence: Evidence, options: PruningOptions) -> LayerScores:
    """L for the layer removed first, L - 1 for the next, 0 for those that stay.

    Every step measures the loss without each remaining layer: sparsity * L rounds of L passes over
    the calibration texts. The order is nested, so a larger sparsity holds the smaller ones.
    """
    candidates = droppable(evidence, options)
    count = min(options.drop_count(evidence.layers), len(candidates))
    values = np.zeros(evidence.layers)
    removed: list[int] = []
    total = sum(len(candidates) - step for step in range(count))
    with progress_bar("greedy perplexity", total, evidence.progress) as advance:
        for step in range(count):
            losses = {}
            for layer in (c for c in candidates if c not in removed):
                losses[layer] = _loss(evidence, [*removed, layer])
                advance(1)
            removed.append(min(losses, key=losses.__getitem__))
            values[removed[-1]] = evidence.layers - step
    return LayerScores(values, "greedy")


def _loss(evidence: Evidence, layers: list[int]) -> float:
    """The mean loss with these layers skipped; a model that breaks down counts as the worst."""
    likelihood, skipped = evidence.likelihood, frozenset(layers)
    if skipped in likelihood.measured:
        loss, seconds = likelihood.measured[skipped]
        evidence.spared_seconds += seconds
        return loss
    start = time.perf_counter()
    with identity_layers(likelihood.model, layers):
        loss = likelihood.mean()
    loss = loss if math.isfinite(loss) else math.inf
    likelihood.measured[skipped] = loss, time.perf_counter() - start
    return loss
