"""The papers' rule: mean inter-layer persistence.

Gardinazzi et al., "Persistent Topological Features in Large Language Models", ICML 2025
(arXiv 2410.11042). TopoVLM (arXiv 2604.16502) applies it to vision-language models with k = 15 and
alpha = 1. The formula is that of the paper's text; the released code's,
which returns the published layers, is released_layers below.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lmms_topoprune.calibration.states import HiddenStates
from lmms_topoprune.criteria.topology import GARDINAZZI_BIBTEX, barcodes, for_report
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.registry import criterion
from lmms_topoprune.selection import LayerScores, select
from lmms_topoprune.topology import Barcode, inter_layer_persistence, released_persistence


@criterion(
    "gardinazzi",
    summary="mean inter-layer persistence, with its threshold",
    paper="Gardinazzi et al., Persistent Topological Features in Large Language Models, ICML 2025",
    address="https://arxiv.org/abs/2410.11042",
    bibtex=GARDINAZZI_BIBTEX,
    state="norm",
    parameters=("k", "dimension", "metric", "alpha"),
    selection_without_sparsity="threshold",
    defaults={"protect_first": 0, "protect_last": 0},
)
def score(states: HiddenStates, options: PruningOptions) -> LayerScores:
    """The weighted mean over j of Z(l, j) for the states l = 0..L-1; the final state only lends weight.

    State l belongs to layer l: with "norm" it lies inside that layer, with "residual" before it.
    """
    found = barcodes(states, options)
    values = [
        inter_layer_persistence(barcode, options.dimension, options.alpha) for barcode in found.values()
    ]
    means = np.mean(values, axis=0)[: states.layers]
    return LayerScores(means, options.criterion, for_report(found, options))


topovlm = replace(
    score,
    name="topovlm",
    summary="inter-layer persistence with TopoVLM's settings",
    paper="TopoVLM (arXiv 2604.16502)",
    address="https://arxiv.org/abs/2604.16502",
    builds_on=(score,),
    state="residual",
    defaults={"k": "15", "alpha": 1.0, "token": "ret"},
)


def released_layers(barcode: Barcode, *, eps: float = 0.9, p: int = 1) -> tuple[int, ...]:
    """Algorithm 2 as released, for a barcode from anywhere: the layers that score at least eps * max.

    State l is the norm inside layer l; the last state is the final norm, which takes part in the maximum
    but belongs to no layer. The authors' files count indices from 1: read them
    with Barcode.load(path, first=1).
    """
    values = released_persistence(barcode, p)
    last = len(values) - 1
    everything = LayerScores(values, "released persistence")
    return select(everything, 0, rule="threshold", eps=eps, protect_first=0, protect_last=0, forbidden={last})
