"""The papers' rule: mean inter-layer persistence.

Gardinazzi et al., "Persistent Topological Features in Large Language Models", ICML 2025
(arXiv 2410.11042). TopoVLM (arXiv 2604.16502) applies it to vision-language models with k = 15 and
alpha = 1; plugin.toml holds both settings. The formula is that of the paper's text; the released code's,
which returns the published layers, is topology.gardinazzi_layers.
"""

from __future__ import annotations

import numpy as np

from lmms_topoprune.calibration.states import HiddenStates
from lmms_topoprune.criteria.topology import barcodes, for_report
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.selection import LayerScores
from lmms_topoprune.topology import inter_layer_persistence


def score(states: HiddenStates, options: PruningOptions) -> LayerScores:
    """The weighted mean over j of Z(l, j) for the states l = 0..L-1; the final state only lends weight.

    State l belongs to layer l: with "norm" it lies inside that layer, with "residual" before it.
    """
    found = barcodes(states, options)
    values = [
        inter_layer_persistence(barcode, options.dimension, options.alpha) for barcode in found.values()
    ]
    return LayerScores(
        np.mean(values, axis=0)[: states.layers], options.criterion, for_report(found, options)
    )
