"""Calibration: samples, prompts, and the hidden states of one forward pass."""
