"""Where entry points of installations made before point to."""

from lmms_topoprune.harness.manifests import manifests

__all__ = ["manifests"]
