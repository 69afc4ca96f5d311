"""Where the entry points of older installations point to."""

from lmms_topoprune.harness.manifests import manifests

__all__ = ["manifests"]
