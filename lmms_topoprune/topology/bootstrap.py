"""How much scores and chosen layers depend on the samples: subsampling without replacement.

Politis and Romano 1994. Drawing with replacement would put duplicates next to each other and change every
neighborhood. The distances are computed once; a replicate only looks for neighbors among its samples.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmms_topoprune.errors import OptionError
from lmms_topoprune.topology.barcode import Barcode
from lmms_topoprune.topology.descriptors import Floats
from lmms_topoprune.topology.neighbors import Distances, Lists, Neighbors
from lmms_topoprune.topology.points import Cloud, checked, thread_count, whole
from lmms_topoprune.topology.zigzag import neighbors_barcode


@dataclass(frozen=True)
class Bootstrap:
    """Attributes:
    values: (replicates, ...) the score in each replicate.
    frequency: (L,) share of the replicates that drop each layer, None without a selection.
    """

    values: Floats
    frequency: Floats | None

    def interval(self, level: float = 0.95) -> tuple[Floats, Floats]:
        """Lower and upper quantiles of the score over the replicates, 0 < level < 1.

        They show how far the score moves when samples are left out. Subsets that share most of their
        samples are alike: with fraction f the spread is about sqrt((1 - f) / f) of that between independent
        draws of all samples, half of it at 0.8 and all of it at 0.5.

        Raises:
            OptionError: the level is out of range.
        """
        if not 0 < level < 1:
            raise OptionError(f"level is {level}; allowed: 0 < level < 1")
        tail = (1 - level) / 2
        return np.quantile(self.values, tail, axis=0), np.quantile(self.values, 1 - tail, axis=0)


def bootstrap(
    states: Any,
    score: Callable[[Barcode], Floats],
    *,
    k: int,
    metric: str = "euclidean",
    dimensions: Collection[int] = (1,),
    choose: Callable[[Floats], Iterable[int]] | None = None,
    replicates: int = 20,
    fraction: float = 0.8,
    seed: int = 0,
) -> Bootstrap:
    """Scores and layers of random subsets of the samples.

    Args:
        states: (S, N, d).
        score: of a barcode, such as lambda b: jaccard(b, 1).
        k, metric, dimensions: as in zigzag_barcode.
        choose: layers that a score drops, such as lambda v: select(PairScores(v), 3).
        replicates, fraction, seed: number of subsets, their share of the samples, and how they are drawn.

    Raises:
        InputError: states that no graph can be made of.
        OptionError: an argument is out of range, or the subsets have too few samples for k.
    """
    states = checked(states, k, metric)
    for name, value, low in (("replicates", replicates, 1), ("seed", seed, 0)):
        if not whole(value) or value < low:
            raise OptionError(f"{name} is {value!r}; allowed: whole numbers from {low}")
    if not isinstance(fraction, int | float) or not 0 < fraction <= 1:
        raise OptionError(f"fraction is {fraction!r}; allowed: 0 < fraction <= 1")
    size = round(fraction * states.shape[1])
    if not k < size:
        raise OptionError(
            f"fraction is {fraction}, which leaves {size} of {states.shape[1]} samples; "
            f"allowed with k {k}: at least {k + 1} samples"
        )
    clouds = [Distances.of(Cloud.of(points, s, metric)) for s, points in enumerate(states)]
    generator = np.random.default_rng(seed)
    values = []
    with ThreadPoolExecutor(thread_count()) as pool:
        for _ in range(replicates):
            samples = np.sort(generator.choice(states.shape[1], size, replace=False))
            near = list(pool.map(partial(_nearest, samples=samples, k=k), clouds))
            values.append(score(neighbors_barcode(Neighbors(np.stack(near), {}), k=k, dimensions=dimensions)))
    return Bootstrap(
        np.stack(values), None if choose is None else _frequency([choose(v) for v in values], len(states))
    )


def _nearest(cloud: Distances, samples: NDArray[np.int64], k: int) -> Lists:
    return cloud.subset(samples).nearest(k).index


def _frequency(choices: list[Iterable[int]], states: int) -> NDArray[np.float64]:
    counts = np.zeros(states - 1)
    for layers in choices:
        counts[list(layers)] += 1
    return counts / len(choices)
