"""Pairwise topological Jaccard: how much of the shape at state i is still the shape at state j.

The zigzag barcode is that of Gardinazzi et al., "Persistent Topological Features in Large Language
Models", ICML 2025 (arXiv 2410.11042); the pairwise score is this project's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from lmms_topoprune.criteria.evidence import Evidence
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.registry import criterion
from lmms_topoprune.selection import PairScores
from lmms_topoprune.topology import Barcode, jaccard, zigzag_barcode

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
)
def pairwise(evidence: Evidence, options: PruningOptions) -> PairScores:
    """J_p(i, j), the bars alive at both states over the bars alive at either; the mean over several k."""
    found = barcodes(evidence.state(options.state), options)
    values = np.mean([jaccard(barcode, options.dimension) for barcode in found.values()], axis=0)
    return PairScores(values, "topology", kept(found, options))


multiscale = replace(
    pairwise,
    name="multiscale",
    summary="topology at three neighborhood sizes, averaged",
    defaults={"k": "5+10+15"},
)


def barcodes(states: np.ndarray, options: PruningOptions) -> dict[int, Barcode]:
    """k -> the zigzag barcode of states (S, N, d) in the chosen dimension."""
    return {k: _barcode(states, k, options) for k in options.ks}


def _barcode(states: np.ndarray, k: int, options: PruningOptions) -> Barcode:
    return zigzag_barcode(states, k=k, metric=options.metric, dimensions=(options.dimension,))


def kept(found: Mapping[int, Barcode], options: PruningOptions) -> tuple[dict[str, Any], ...]:
    """Barcodes as a report reads them: k, dimension, states and the counted bars."""
    return tuple(
        {"k": k, "dimension": options.dimension, "states": barcode.states, "bars": barcode.counted()}
        for k, barcode in found.items()
    )


def jaccard_of(states: np.ndarray, k: int, options: PruningOptions) -> np.ndarray:
    """(S, S) for states (S, N, d)."""
    return jaccard(_barcode(states, k, options), options.dimension)
