"""Criteria: from the evidence of one calibration pass to a score per layer or per pair of states."""
