"""Sets of layers that several rules propose from one calibration pass, and which to look at next.

Topology, angle and block influence each miss what another sees, and no k is best everywhere: each proposes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from lmms_topoprune.calibration.states import DecoderLayers
from lmms_topoprune.criteria.topology_angle import balanced
from lmms_topoprune.errors import OptionError
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.pipeline.checks import resolved
from lmms_topoprune.pipeline.plans import plan_from
from lmms_topoprune.pipeline.scorer import Scored
from lmms_topoprune.plan import PruningPlan
from lmms_topoprune.selection import Floats, LayerScores, PairScores, layer_values

SWAP = "swap"
ZIGZAGS = ("intersections", "unions")
"""Criteria whose pair scores order the swaps."""
Layers = tuple[int, ...]

# The most telling first: fewer trials than these take the first of them. On samples a criterion keeps the
# settings of its paper; each k is tried, since none is best everywhere.
PROPOSERS: tuple[tuple[str, Mapping[str, str]], ...] = (
    ("zigzag_influence", {}),
    ("zigzags", {}),
    ("block_influence", {}),
    ("intersections", {"selection": "path"}),
    ("unions", {}),
    ("angular", {}),
    ("topology_angle_influence", {"points": "tokens", "metric": "cosine", "k": "10"}),
    ("intersections", {}),
    ("intersections", {"selection": "path", "k": "7"}),
    ("unions", {"k": "7"}),
    ("intersections", {"selection": "path", "k": "15"}),
    ("unions", {"k": "15"}),
    ("zigzags", {"k": "10"}),
    ("unions", {"selection": "path"}),
    ("cosine", {}),
    ("knn_overlap", {}),
)
SHARED = (
    "sparsity", "point_count", "image_share", "calibration", "samples", "calibration_batch",
    "calibration_strict", "calibration_forced", "seed", "protect_first", "protect_last",
)  # fmt: skip


def proposers(
    options: PruningOptions, among: Sequence[tuple[str, Mapping[str, str]]] = PROPOSERS
) -> list[PruningOptions]:
    """What proposes sets of layers: the options' own rule, then the others, for the same samples and layers.

    Those are left out for which there are too few samples or points.
    """
    found = [replace(options, trials=0)]
    for criterion, changes in among:
        own = {name: getattr(options, name) for name in SHARED} | dict(changes)
        if options.protect_massive:
            own["protect_massive"] = True
        with suppress(OptionError):
            found.append(PruningOptions(criterion=criterion, trials=0, **own))
    return found


def proposed(
    model: Any,
    plan: PruningPlan,
    own: tuple[PruningOptions, Scored],
    found: Sequence[tuple[PruningOptions, Scored]],
    layers: DecoderLayers,
) -> tuple[list[Proposal], Floats, list[int]]:
    """Distinct proposals, how alike states are (S, S), and the layers that may go.

    Args:
        model: the dense model.
        plan: what the rule alone decides.
        own: the options of that plan, and its scores.
        found: those of others.
        layers: the decoder's.
    """
    options, scores = own
    every = [scores, *(scored for _, scored in found)]
    massive = {layer for scored in every for layer in scored.massive if options.protect_massive}
    kept = DecoderLayers(layers.count, layers.undeletable | massive)
    proposals = [Proposal(plan.dropped, plan.criterion, described(resolved(options)))]
    for other, scored in found:
        with suppress(OptionError):  # a block that long may not be there
            made = plan_from(model, resolved(other), plan.model, scored, kept, plan.fingerprint)
            proposals.append(Proposal(made.dropped, other.criterion, described(resolved(other))))
    zigzags = [scored.scores for other, scored in found if other.criterion in ZIGZAGS]
    candidates = kept.droppable(options.protect_first, options.protect_last)
    return distinct(proposals), similarity(zigzags or [scores.scores]), candidates


@dataclass(frozen=True)
class Proposal:
    """A set of layers and who proposed it.

    Attributes:
        dropped: the layers, ascending.
        by: the criterion, or SWAP.
        how: its settings, or which layers were swapped.
        also: others that proposed the same set.
    """

    dropped: Layers
    by: str
    how: str = ""
    also: tuple[str, ...] = ()


def distinct(proposals: Sequence[Proposal]) -> list[Proposal]:
    """Each set once, under whoever proposed it first."""
    found: dict[Layers, Proposal] = {}
    for one in proposals:
        known = found.get(one.dropped)
        also = () if known is None else (*known.also, f"{one.by} {one.how}".strip())
        found[one.dropped] = one if known is None else replace(known, also=also)
    return list(found.values())


def described(options: PruningOptions) -> str:
    """A proposer's settings, as far as they tell it from others: "k=10, path"."""
    k = [f"k={options.k}"] if options.points == "tokens" else []
    return ", ".join([*k, options.selection])


def swap_order(pairs: Floats, dropped: Layers, candidates: Sequence[int]) -> list[tuple[int, int]]:
    """(layer that stays, layer that goes instead), the most promising first.

    Args:
        pairs: (S, S) similarity of states; the layers of a run i..j-1 together cost -log pairs[i, j].
        dropped: the set.
        candidates: layers that may go.
    """
    cost = -np.log(np.maximum(pairs, np.finfo(np.float64).tiny))
    moves = product(dropped, (layer for layer in candidates if layer not in dropped))
    return sorted(moves, key=lambda move: (_set_cost(cost, {*dropped} - {move[0]} | {move[1]}), move))


def _set_cost(cost: Floats, layers: set[int]) -> float:
    """Runs of layers and single ones in equal parts: either alone goes wrong where many layers go."""
    ordered = sorted(layers)
    starts = [a for a in ordered if a - 1 not in layers]
    ends = [b + 1 for b in ordered if b + 1 not in layers]
    runs = sum(cost[i, j] for i, j in zip(starts, ends, strict=True))
    return float(runs + sum(cost[layer, layer + 1] for layer in ordered))


def similarity(scores: Sequence[LayerScores | PairScores]) -> Floats:
    """(S, S): the pair scores together, in one unit; scores of layers alone count layer by layer."""
    pairs = [one.values for one in scores if isinstance(one, PairScores)]
    if pairs:
        return balanced(*pairs)
    values = layer_values(scores[0])
    steps = 1 + np.argsort(np.argsort(-values, kind="stable"), kind="stable")  # 1 for what goes first
    sums = np.concatenate([[0], np.cumsum(steps / len(steps))])
    return np.asarray(np.exp(-np.abs(sums[:, None] - sums)))
