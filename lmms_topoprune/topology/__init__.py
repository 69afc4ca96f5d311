"""Zigzag persistent homology of layer point clouds: arrays in, arrays out; knows no model."""

from lmms_topoprune.topology.barcode import Barcode
from lmms_topoprune.topology.bootstrap import Bootstrap, bootstrap
from lmms_topoprune.topology.descriptors import (
    activity,
    alive,
    betti,
    births_relative_frequency,
    bottleneck_distance,
    consistency,
    effective_persistence_image,
    inter_layer_persistence,
    jaccard,
    released_persistence,
    smooth_persistence_image,
)
from lmms_topoprune.topology.neighbors import Neighbors
from lmms_topoprune.topology.state_similarity import (
    alive_directly,
    combined_jaccard,
    combined_persistence,
    scales,
    similarity,
)
from lmms_topoprune.topology.zigzag import (
    complexes_barcode,
    graphs_barcode,
    neighbors_barcode,
    shuffled_barcode,
    static_betti,
    union_zigzag_barcode,
    zigzag_barcode,
    zigzag_barcodes,
)

__all__ = [
    "Barcode",
    "Bootstrap",
    "Neighbors",
    "activity",
    "alive",
    "alive_directly",
    "betti",
    "births_relative_frequency",
    "bootstrap",
    "bottleneck_distance",
    "combined_jaccard",
    "combined_persistence",
    "complexes_barcode",
    "consistency",
    "effective_persistence_image",
    "graphs_barcode",
    "inter_layer_persistence",
    "jaccard",
    "neighbors_barcode",
    "released_persistence",
    "scales",
    "shuffled_barcode",
    "similarity",
    "smooth_persistence_image",
    "static_betti",
    "union_zigzag_barcode",
    "zigzag_barcode",
    "zigzag_barcodes",
]
