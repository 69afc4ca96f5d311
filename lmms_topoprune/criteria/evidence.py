"""The evidence a criterion scores; what a calibration pass returns."""

from lmms_topoprune.calibration.evidence import Evidence

__all__ = ["Evidence"]
