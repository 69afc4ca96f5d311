"""Healing: a pruned model is trained for a little on the answers that the dense model gives.

One copy of the weights is both teacher and student. Nothing here needs labels.
"""
