"""Greedy perplexity: remove, one after the other, the layer that the loss misses least.

Song et al., "SLEB: Streamlining LLMs through Redundancy Verification and Elimination of Transformer
Blocks", ICML 2024 (arXiv 2402.09025), algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from lmms_topoprune._util.progress import progress_bar
from lmms_topoprune.criteria.evidence import Evidence
from lmms_topoprune.criteria.position import droppable
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.registry import criterion
from lmms_topoprune.selection import LayerScores


@criterion(
    "greedy",
    summary="the layer that the loss misses least, step by step",
    paper="Song et al., SLEB: Streamlining LLMs through Redundancy Verification and Elimination, ICML 2024",
    address="https://arxiv.org/abs/2402.09025",
    state="none",
    loss=True,
    parameters=("sparsity", "protect_first", "protect_last"),
    defaults={"samples": 64},
)
def score(evidence: Evidence, options: PruningOptions) -> LayerScores:
    """L for the layer removed first, L - 1 for the next, 0 for those that stay.

    Every step measures the loss without each remaining layer: sparsity * L rounds of L passes over
    the calibration texts, of which about half has to be computed. The order is nested, so a larger
    sparsity holds the smaller ones.
    """
    candidates = droppable(evidence, options)
    count = min(options.drop_count(evidence.layers), len(candidates))
    values = np.zeros(evidence.layers)
    removed: list[int] = []
    texts = len(evidence.likelihood.texts)
    total = texts * sum(len(candidates) - step for step in range(count))
    with progress_bar("greedy perplexity", total, evidence.progress) as advance:
        for step in range(count):
            left = [layer for layer in candidates if layer not in removed]
            losses = _losses(evidence, removed, left, advance)
            removed.append(min(left, key=losses.__getitem__))
            values[removed[-1]] = evidence.layers - step
    return LayerScores(values, "greedy")


def _losses(
    evidence: Evidence, removed: list[int], left: list[int], advance: Callable[[int], None]
) -> dict[int, float]:
    """The mean loss without each of these layers too; a model that breaks down counts as the worst."""
    likelihood = evidence.likelihood
    measured, sets = likelihood.measured, {layer: frozenset([*removed, layer]) for layer in left}
    known = [layer for layer in left if sets[layer] in measured]
    evidence.spared_seconds += sum(measured[sets[layer]][1] for layer in known)
    advance(len(known) * len(likelihood.texts))
    likelihood.measure(removed, [layer for layer in left if layer not in known], advance)
    losses = {layer: measured[sets[layer]][0] for layer in left}
    return {layer: loss if math.isfinite(loss) else math.inf for layer, loss in losses.items()}
