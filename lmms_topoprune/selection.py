"""From scores to the set of layers to drop: rank, block, path and threshold.

A layer l maps state l to state l + 1. Ties are broken by the lower layer, so one input gives one answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmms_topoprune.errors import InputError, OptionError, unknown

RULES = ("auto", "rank", "block", "path", "threshold")
Floats = NDArray[np.float64]
ROUNDING = 1e-6  # of similarities that were computed in float32
TINY = 1e-12  # similarity 0 costs a lot, but a path through it is still better than none


@dataclass(frozen=True)
class LayerScores:
    """One number a layer, values (L,); the higher, the earlier the layer is dropped.

    `barcodes` is what the scores were read off, for reports; no rule looks at it.
    """

    values: Floats
    name: str = "scores"
    barcodes: tuple[Mapping[str, Any], ...] = field(default=(), repr=False, compare=False)

    def __post_init__(self) -> None:
        values = _finite(self.values, self.name)
        if values.ndim != 1 or len(values) == 0:
            raise InputError(f"{self.name} has shape {values.shape}; allowed: (layers,)")
        object.__setattr__(self, "values", values)

    @property
    def layers(self) -> int:
        return len(self.values)

    def __str__(self) -> str:
        return f"{self.name}: a score for each of {self.layers} layers"


@dataclass(frozen=True)
class PairScores:
    """values (S, S), S = L + 1: similarity in 0..1 of state i and state j; state l is the input of layer l.

    The higher values[i, j], the more redundant are the layers i..j-1 together. `barcodes` is as for
    LayerScores.
    """

    values: Floats
    name: str = "scores"
    barcodes: tuple[Mapping[str, Any], ...] = field(default=(), repr=False, compare=False)

    def __post_init__(self) -> None:
        values = _finite(self.values, self.name)
        if values.ndim != 2 or values.shape[0] != values.shape[1] or len(values) < 2:
            raise InputError(
                f"{self.name} has shape {values.shape}; allowed: (states, states), from 2 states"
            )
        outside = np.argwhere(np.abs(values - 0.5) > 0.5 + ROUNDING)
        if len(outside):
            i, j = outside[0]
            raise InputError(f"{self.name} is {values[i, j]} at ({i}, {j}); allowed: similarities in 0..1")
        object.__setattr__(self, "values", values.clip(0, 1))

    @property
    def layers(self) -> int:
        return len(self.values) - 1

    def __str__(self) -> str:
        return f"{self.name}: a similarity for each pair of {self.layers + 1} states"


def select(
    scores: LayerScores | PairScores,
    drop: int,
    *,
    rule: str = "auto",
    eps: float = 0.9,
    protect_first: int = 1,
    protect_last: int = 1,
    forbidden: Iterable[int] = frozenset(),
) -> tuple[int, ...]:
    """The layers to drop, ascending.

    Args:
        scores: of layers or of pairs of states.
        drop: how many layers go; "threshold" finds the number by itself and ignores it.
        rule: "rank", the highest scores; "block", the best contiguous block; "path", the best set of
            blocks (pairs only); "threshold", scores of at least eps * max (Gardinazzi et al., algorithm
            2); "auto", rank for layers and path for pairs.
        eps: of the threshold, 0 < eps <= 1.
        protect_first, protect_last: layers at either end that stay.
        forbidden: further layers that stay.

    Raises:
        OptionError: no such rule, or it does not suit the scores, or so many layers cannot go, or a
            forbidden layer does not exist.
    """
    if rule not in RULES:
        raise unknown("rule", rule, RULES)
    if not isinstance(scores, LayerScores | PairScores):
        raise InputError(f"scores is of type {type(scores).__name__}; allowed: LayerScores, PairScores")
    pairs = isinstance(scores, PairScores)
    if rule == "auto":
        rule = "path" if pairs else "rank"
    if rule == "path" and not pairs:
        raise OptionError(
            f"rule is 'path', but {scores.name} has no score for pairs; allowed: rank, block, threshold"
        )
    free = droppable(scores.layers, protect_first, protect_last, forbidden)
    if rule == "threshold":
        return _threshold(layer_values(scores), free, eps)
    _check_drop(drop, free)
    if drop == 0:
        return ()
    if rule == "rank":
        return _rank(layer_values(scores), free, drop)
    return _block(scores, free, drop) if rule == "block" else _path(scores.values, free, drop)


def layer_values(scores: LayerScores | PairScores) -> Floats:
    """(L,): the scores themselves, or each layer's similarity of input and output."""
    return scores.values if isinstance(scores, LayerScores) else np.diagonal(scores.values, 1)


def reverse(scores: LayerScores | PairScores) -> LayerScores | PairScores:
    """-s for scores of layers; 1 - s for similarities of states, which have to stay within 0..1."""
    name = f"reverse {scores.name}"
    if isinstance(scores, LayerScores):
        return LayerScores(-scores.values, name)
    return PairScores(1 - scores.values, name)


def droppable(layers: int, first: int, last: int, forbidden: Iterable[int]) -> NDArray[np.bool_]:
    """(layers,): which layers may go.

    Raises:
        OptionError: a number of protected layers is negative, or a forbidden layer does not exist.
    """
    if first < 0 or last < 0:
        raise OptionError(f"protect_first, protect_last are {first}, {last}; allowed: whole numbers from 0")
    forbidden = list(forbidden)
    absent = [layer for layer in forbidden if layer not in range(layers)]
    if absent:
        raise OptionError(f"forbidden holds {absent[0]!r}; allowed: layers from 0 to {layers - 1}")
    free = np.zeros(layers, dtype=bool)
    free[first : max(layers - last, 0)] = True
    free[forbidden] = False
    return free


def _check_drop(drop: int, free: NDArray[np.bool_]) -> None:
    most = min(int(free.sum()), len(free) - 1)
    if not isinstance(drop, int | np.integer) or not 0 <= drop <= most:
        raise OptionError(f"drop is {drop}, but {most} of {len(free)} layers may go; allowed: 0 to {most}")


def _rank(values: Floats, free: NDArray[np.bool_], drop: int) -> tuple[int, ...]:
    order = np.argsort(np.where(free, -values, np.inf), kind="stable")
    return tuple(sorted(int(layer) for layer in order[:drop]))


def _threshold(values: Floats, free: NDArray[np.bool_], eps: float) -> tuple[int, ...]:
    """The maximum is taken over all layers, as in the paper; protection applies afterwards."""
    if not 0 < eps <= 1:
        raise OptionError(f"eps is {eps}; allowed: 0 < eps <= 1")
    chosen = np.flatnonzero(free & (values >= eps * values.max()) & (values > 0))
    if len(chosen) == len(values):
        raise OptionError(
            f"eps is {eps}, which drops all {len(values)} layers; pass a larger eps or protect a layer"
        )
    return tuple(int(layer) for layer in chosen)


def _block(scores: LayerScores | PairScores, free: NDArray[np.bool_], drop: int) -> tuple[int, ...]:
    starts = [i for i in range(scores.layers - drop + 1) if free[i : i + drop].all()]
    if not starts:
        raise OptionError(
            f"drop is {drop}, but no {drop} neighboring layers may go; pass fewer or another rule"
        )
    if isinstance(scores, PairScores):
        quality = [scores.values[i, i + drop] for i in starts]
    else:
        quality = [scores.values[i : i + drop].mean() for i in starts]
    start = starts[int(np.argmax(quality))]
    return tuple(range(start, start + drop))


def _path(similarity: Floats, free: NDArray[np.bool_], drop: int) -> tuple[int, ...]:
    """Dynamic program over states: keep a layer (free) or jump from i to j at cost -log similarity.

    A layer is kept between two jumps, so that each block is judged by its own two ends.
    """
    layers = len(free)
    cost = -np.log(np.maximum(similarity, TINY))
    reach = [next((j for j in range(i, layers) if not free[j]), layers) for i in range(layers)]
    # best[i][n] = (cost, dropped) at state i with n dropped, the layer before i kept; landed: just jumped.
    best: list[dict[int, tuple[float, tuple[int, ...]]]] = [{} for _ in range(layers + 1)]
    landed: list[dict[int, tuple[float, tuple[int, ...]]]] = [{} for _ in range(layers + 1)]
    best[0][0] = (0.0, ())
    for i in range(layers):
        for n, (spent, dropped) in best[i].items():
            for j in range(i + 1, min(reach[i], i + drop - n) + 1):
                step = (spent + cost[i, j], (*dropped, *range(i, j)))
                _better(landed[j], n + j - i, step)
        for table in (best[i], landed[i]):
            for n, entry in table.items():
                _better(best[i + 1], n, entry)
    ends = [table[drop] for table in (best[layers], landed[layers]) if drop in table]
    if not ends:
        raise OptionError(f"drop is {drop}, but no such path exists; pass fewer layers")
    return min(ends)[1]


def _better(
    table: dict[int, tuple[float, tuple[int, ...]]], n: int, entry: tuple[float, tuple[int, ...]]
) -> None:
    if n not in table or entry < table[n]:
        table[n] = entry


def _finite(values: Floats, name: str) -> Floats:
    try:
        values = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{name} holds something else than numbers; allowed: finite numbers") from None
    if not np.isfinite(values).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
        raise InputError(f"{name} is {values[place]} at {place}; allowed: finite numbers")
    return values
