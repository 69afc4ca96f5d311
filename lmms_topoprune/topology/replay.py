"""Gardinazzi's rule as released, applied to a barcode from anywhere.

The paper's text divides A(l, j) by beta(l) and leaves out j = l; the released code divides by beta(j) and
keeps it. Only the code's form gives the layers that were published.
"""

from __future__ import annotations

from lmms_topoprune.selection import LayerScores, select
from lmms_topoprune.topology.barcode import Barcode
from lmms_topoprune.topology.descriptors import Floats, compared, consistency


def released_persistence(barcode: Barcode, p: int = 1) -> Floats:
    """(S,): mean over all j of A(l, j) / beta(j)."""
    compared(barcode)
    return consistency(barcode, p).mean(0)


def gardinazzi_layers(barcode: Barcode, *, eps: float = 0.9, p: int = 1) -> tuple[int, ...]:
    """Algorithm 2: the layers with a persistence of at least eps times the largest.

    State l is the norm inside layer l; the last state is the final norm, which takes part in the maximum
    but belongs to no layer. The authors' files count indices from 1: read them
    with Barcode.load(path, first=1).
    """
    values = released_persistence(barcode, p)
    last = len(values) - 1
    everything = LayerScores(values, "released persistence")
    return select(everything, 0, rule="threshold", eps=eps, protect_first=0, protect_last=0, forbidden={last})
