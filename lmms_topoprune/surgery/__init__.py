"""Layer surgery: delete decoder layers from any model of transformers, and undo it."""

from lmms_topoprune.surgery.delete import Deletion, delete_layers, undeletable
from lmms_topoprune.surgery.fingerprint import fingerprint
from lmms_topoprune.surgery.identity import identity_layers
from lmms_topoprune.surgery.locate import decoder_layers, layers_path, text_config

__all__ = [
    "Deletion",
    "decoder_layers",
    "delete_layers",
    "fingerprint",
    "identity_layers",
    "layers_path",
    "text_config",
    "undeletable",
]
