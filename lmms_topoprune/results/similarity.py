"""What a topological criterion saw of the states of a model: their similarity and their barcodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, Field, FiniteFloat, NonNegativeInt, PositiveInt, model_validator

from lmms_topoprune._util.checked_files import checked, read_object, understood
from lmms_topoprune.topology import Barcode

MOST = 2000
"""States, and neighbors, that no model has more of."""
MOST_BARS = 4_000_000


@dataclass(frozen=True)
class Shape:
    """Of one criterion.

    Attributes:
        similarity: (S, S); None for a criterion that scores single layers.
        barcodes: k -> the barcode and its homology dimension; empty for criteria without topology.
    """

    similarity: list[list[float]] | None = None
    barcodes: Mapping[int, tuple[Barcode, int]] | None = None


_Counted = tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt, PositiveInt]


class _Bars(BaseModel):
    """A barcode as counted bars (dimension, birth, death, count)."""

    k: int = Field(ge=1, le=MOST)
    dimension: int = Field(ge=0, le=9)
    states: int = Field(ge=1, le=MOST)
    bars: list[_Counted] = Field(max_length=MOST_BARS)

    @model_validator(mode="after")
    def _bounded(self) -> _Bars:
        if any(not birth < death < 2 * self.states for _, birth, death, _ in self.bars):
            raise ValueError(f"a bar does not lie between 0 and {2 * self.states - 1}")
        return self


class _File(BaseModel):
    """What a sweep keeps of one criterion."""

    criterion: str = Field(max_length=1000)
    values: list[list[FiniteFloat]] | None = Field(max_length=MOST)
    barcodes: list[_Bars] = Field(default=[], max_length=100)

    @model_validator(mode="after")
    def _square(self) -> _File:
        if self.values is not None and any(len(row) != len(self.values) for row in self.values):
            raise ValueError("values are no square of numbers")
        if sum(count for barcode in self.barcodes for *_, count in barcode.bars) > MOST_BARS:
            raise ValueError(f"barcodes have more than {MOST_BARS} bars")
        return self


def read_shape(path: Path) -> tuple[str, Shape]:
    """Criterion and shape from a file of a sweep.

    Raises:
        InputError: the file is cut short, or a field of it is malformed or larger than any model (named).
    """
    found = checked(_File, read_object(path), path, "similarity file of a sweep")
    with understood(path, "similarity file of a sweep"):
        bars = {e.k: (Barcode.from_counted(e.bars, e.states), e.dimension) for e in found.barcodes}
        return found.criterion, Shape(found.values, bars)
