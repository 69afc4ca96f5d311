"""Zigzag persistent homology of layer point clouds: arrays in, arrays out; knows no model."""

from lmms_topoprune.topology.barcode import Barcode
from lmms_topoprune.topology.bootstrap import Bootstrap, bootstrap
from lmms_topoprune.topology.controls import shuffled_barcode, static_betti
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
    smooth_persistence_image,
)
from lmms_topoprune.topology.multiscale import combined_jaccard, combined_persistence, zigzag_barcodes
from lmms_topoprune.topology.replay import gardinazzi_layers, released_persistence
from lmms_topoprune.topology.zigzag import complexes_barcode, graphs_barcode, zigzag_barcode

__all__ = [
    "Barcode",
    "Bootstrap",
    "activity",
    "alive",
    "betti",
    "births_relative_frequency",
    "bootstrap",
    "bottleneck_distance",
    "combined_jaccard",
    "combined_persistence",
    "complexes_barcode",
    "consistency",
    "effective_persistence_image",
    "gardinazzi_layers",
    "graphs_barcode",
    "inter_layer_persistence",
    "jaccard",
    "released_persistence",
    "shuffled_barcode",
    "smooth_persistence_image",
    "static_betti",
    "zigzag_barcode",
    "zigzag_barcodes",
]
