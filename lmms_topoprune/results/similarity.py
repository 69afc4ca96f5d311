"""What a topological criterion saw of the states of a model: their similarity and their barcodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lmms_topoprune._util.malformed import read_object, understood
from lmms_topoprune.topology import Barcode


@dataclass(frozen=True)
class Shape:
    """Of one criterion.

    Attributes:
        similarity: (S, S); None for a criterion that scores single layers.
        barcodes: k -> the barcode and its homology dimension; empty for criteria without topology.
    """

    similarity: list[list[float]] | None = None
    barcodes: Mapping[int, tuple[Barcode, int]] | None = None


def read_shape(path: Path) -> tuple[str, Shape]:
    """Criterion and shape from a file of a sweep.

    Raises:
        InputError: the file is cut short or holds something else.
    """
    value = read_object(path)
    with understood(path, "similarity file of a sweep"):
        return str(value["criterion"]), Shape(_square(value["values"]), _barcodes(value.get("barcodes", ())))


def _square(values: Any) -> list[list[float]] | None:
    if values is None:
        return None
    table = np.asarray(values, dtype=float)
    if table.ndim != 2 or table.shape[0] != table.shape[1] or not np.isfinite(table).all():
        raise ValueError("a square of numbers")
    square: list[list[float]] = table.tolist()
    return square


def _barcodes(entries: Any) -> dict[int, tuple[Barcode, int]]:
    return {
        int(entry["k"]): (Barcode.from_counted(entry["bars"], entry["states"]), int(entry["dimension"]))
        for entry in entries
    }
