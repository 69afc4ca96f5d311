"""Layer surgery: delete decoder layers from any model of transformers, and undo it."""

from lmms_topoprune.surgery.delete import Deletion, delete_layers, refusal, refusals, undeletable
from lmms_topoprune.surgery.export import export
from lmms_topoprune.surgery.fingerprint import fingerprint
from lmms_topoprune.surgery.load import load_pruned
from lmms_topoprune.surgery.locate import (
    decoder_layers,
    identity_layers,
    layer_sizes,
    layers_path,
    text_config,
)
from lmms_topoprune.surgery.self_test import self_test

__all__ = [
    "Deletion",
    "decoder_layers",
    "delete_layers",
    "export",
    "fingerprint",
    "identity_layers",
    "layer_sizes",
    "layers_path",
    "load_pruned",
    "refusal",
    "refusals",
    "self_test",
    "text_config",
    "undeletable",
]
