"""Zigzag persistent homology of layer point clouds: arrays in, arrays out; knows no model."""

from lmms_topoprune.topology.barcode import Barcode
from lmms_topoprune.topology.descriptors import (
    alive,
    betti,
    consistency,
    effective_persistence_image,
    inter_layer_persistence,
    jaccard,
)
from lmms_topoprune.topology.zigzag import complexes_barcode, graphs_barcode, zigzag_barcode

__all__ = [
    "Barcode",
    "alive",
    "betti",
    "complexes_barcode",
    "consistency",
    "effective_persistence_image",
    "graphs_barcode",
    "inter_layer_persistence",
    "jaccard",
    "zigzag_barcode",
]
