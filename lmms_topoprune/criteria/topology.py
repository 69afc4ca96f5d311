"""Pairwise topological Jaccard: how much of the shape at state i is still the shape at state j.

The zigzag barcode is that of Gardinazzi et al., "Persistent Topological Features in Large Language
Models", ICML 2025 (arXiv 2410.11042); the pairwise score is this project's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmms_topoprune.calibration.states import HiddenStates
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.registry import criterion
from lmms_topoprune.selection import PairScores
from lmms_topoprune.topology import Barcode, Neighbors, jaccard, neighbors_barcode
from lmms_topoprune.topology.zigzag import neighbors_for, while_compiling

GARDINAZZI_BIBTEX = """\
@inproceedings{gardinazzi2025persistent,
  title     = {Persistent Topological Features in Large Language Models},
  author    = {Gardinazzi, Yuri and Viswanathan, Karthik and Panerai, Giada and Ansuini, Alessio and
               Cazzaniga, Alberto and Biagetti, Matteo},
  booktitle = {Proceedings of the 42nd International Conference on Machine Learning},
  series    = {PMLR},
  volume    = {267},
  pages     = {18811--18830},
  year      = {2025},
  url       = {https://arxiv.org/abs/2410.11042}
}
"""


@criterion(
    "topology",
    summary="bars of the zigzag barcode that two states share",
    paper="Gardinazzi et al., Persistent Topological Features in Large Language Models, ICML 2025",
    address="https://arxiv.org/abs/2410.11042",
    bibtex=GARDINAZZI_BIBTEX,
    parameters=("k", "dimension", "metric"),
    selection="path",
    defaults={"protect_massive": True},
)
def pairwise(states: HiddenStates, options: PruningOptions) -> PairScores:
    """J_p(i, j), the bars alive at both states over the bars alive at either; the mean over several k."""
    found = barcodes(states, options)
    values = np.mean([jaccard(barcode, options.dimension) for barcode in found.values()], axis=0)
    return PairScores(values, "topology", for_report(found, options))


multiscale = replace(
    pairwise,
    name="multiscale",
    summary="topology at three neighborhood sizes, averaged",
    defaults={"k": "5+10+15", "protect_massive": True},
)


def barcodes(
    states: HiddenStates, options: PruningOptions, through: str = "intersections"
) -> dict[int, Barcode]:
    """k -> the zigzag barcode of the states in the chosen dimension."""
    metric, dimension = options.metric, options.dimension
    found = while_compiling(partial(neighbors, states, options, through))

    def barcode(k: int) -> Barcode:
        make = partial(neighbors_barcode, found, k=k, through=through, dimensions=(dimension,))
        return states.derived((through, metric, dimension, k), make)

    return {k: barcode(k) for k in options.ks}


@dataclass(frozen=True)
class Search:
    """Whose neighbors are searched: the k nearest of each point, as far as this zigzag needs them."""

    metric: str
    through: str
    k: int

    def covers(self, other: Search) -> bool:
        """Those for a smaller k are the first ones, and whoever searches unions searches the states first."""
        return self.metric == other.metric and self.through in (other.through, "unions") and self.k >= other.k


def neighbors(states: HiddenStates, options: PruningOptions, through: str = "intersections") -> Neighbors:
    """The neighbors of the cloud's points at every state: as many as anybody is going to ask for."""
    asked = Search(options.metric, through, max(options.ks))
    for search in states.derived_under(Search):
        if search.covers(asked):
            found: Neighbors = states.known(search)
            return found
    points = cloud(states, options)
    others = (k for k in states.shared_ks.get((options.metric, through), ()) if k < points.shape[1])
    ks = list(dict.fromkeys([*options.ks, *others]))
    make = partial(neighbors_for, points, ks, through, options.metric)
    return states.derived(replace(asked, k=max(ks)), make)


def cloud(states: HiddenStates, options: PruningOptions) -> NDArray[np.float32]:
    """(S, N', d): the points that the metric can take.

    Some models embed a few tokens as zero, which has no direction: of tokens, those that are zero at a state
    are no points where the metric is "cosine". Samples are never left out.
    """
    points = states.points
    if options.points != "tokens" or options.metric != "cosine":
        return points
    kept = (np.abs(points).max(2) >= np.finfo(float).tiny).all(0)
    return points if kept.all() else points[:, kept]


def for_report(found: Mapping[int, Barcode], options: PruningOptions) -> tuple[dict[str, Any], ...]:
    """Barcodes as a report reads them: k, dimension, states and the counted bars."""
    return tuple(
        {"k": k, "dimension": options.dimension, "states": barcode.states, "bars": barcode.counted()}
        for k, barcode in found.items()
    )
