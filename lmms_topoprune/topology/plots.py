"""Plots of barcodes and scores; needs the extra `plots` (matplotlib)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from lmms_topoprune.errors import MissingExtraError
from lmms_topoprune.topology.barcode import Barcode
from lmms_topoprune.topology.descriptors import Floats, effective_persistence_image

KEPT, DROPPED = "tab:blue", "tab:red"


def plot_barcode(barcode: Barcode, p: int = 1, ax: Any = None, most: int = 500) -> Any:
    """The longest `most` p-bars as lines over the states, sorted by birth; returns the axes."""
    ax = _axes(ax)
    bars = barcode.bars(p)
    longest = np.argsort(bars[:, 0] - bars[:, 1], kind="stable")[:most]
    ends = bars[np.sort(longest)] / 2
    ax.hlines(np.arange(len(ends)), ends[:, 0], ends[:, 1], color=KEPT, linewidth=1)
    ax.set(xlabel="state", ylabel=f"bar of $H_{p}$", xlim=(0, barcode.states - 0.5))
    return ax


def plot_persistence_image(barcode: Barcode, p: int = 1, ax: Any = None) -> Any:
    """The effective persistence image, log(1 + count), births across and deaths upward."""
    ax = _axes(ax)
    shown = ax.imshow(np.log10(1 + effective_persistence_image(barcode, p).T), origin="lower", cmap="hot")
    ax.figure.colorbar(shown, ax=ax, label="log10(1 + bars)")
    ax.set(xlabel="birth (state)", ylabel="death (state)", title=f"effective persistence image, $H_{p}$")
    return ax


def plot_pairs(values: Floats, label: str = "J(i, j)", ax: Any = None) -> Any:
    """A heat map of numbers (S, S) for pairs of states, such as jaccard or alive."""
    ax = _axes(ax)
    shown = ax.imshow(values, origin="lower", cmap="viridis")
    ax.figure.colorbar(shown, ax=ax, label=label)
    ax.set(xlabel="state j", ylabel="state i")
    return ax


def plot_scores(values: Floats, dropped: Collection[int] = (), label: str = "score", ax: Any = None) -> Any:
    """A score curve (L,) with kept and dropped layers marked."""
    ax = _axes(ax)
    layers = np.arange(len(values))
    gone = np.isin(layers, list(dropped))
    ax.plot(layers, values, color="gray", linewidth=1, zorder=1)
    ax.scatter(layers[~gone], values[~gone], color=KEPT, label="kept", zorder=2)
    ax.scatter(layers[gone], values[gone], color=DROPPED, marker="x", label="dropped", zorder=2)
    ax.set(xlabel="layer", ylabel=label)
    ax.legend()
    return ax


def _axes(ax: Any) -> Any:
    if ax is not None:
        return ax
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise MissingExtraError(
            "plots need matplotlib; install it in the clone with: pip install '.[plots]'"
        ) from None
    return plt.subplots()[1]
