"""Pruned runs of one criterion and one number of dropped layers: its calibration seeds, put together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from lmms_topoprune.comparison.side_by_side import Comparison, Row
from lmms_topoprune.comparison.statistics import Interval
from lmms_topoprune.plan import parse_layers


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed.

    Attributes:
        criterion: its variant.
        dropped: number of layers.
        sparsity: their share.
        rows: one a seed.
        kept: chance-corrected retention, mean over seeds.
        interval: of `kept`, 95 %, over documents and seeds.
    """

    criterion: str
    dropped: int
    sparsity: float
    rows: tuple[Row, ...]
    kept: float
    interval: Interval

    @property
    def name(self) -> str:
        return f"{self.criterion}, {self.dropped} layers"


def groups(comparison: Comparison) -> list[Group]:
    """All groups, by criterion and then by the number of layers."""
    found: dict[tuple[str, int], list[Row]] = {}
    for row in pruned(comparison):
        found.setdefault((row.criterion, len(parse_layers(row.dropped))), []).append(row)
    return [_group(*key, rows) for key, rows in sorted(found.items())]


def pruned(comparison: Comparison) -> list[Row]:
    return [row for row in comparison.rows if row.criterion != "dense"]


def _group(criterion: str, dropped: int, rows: Sequence[Row]) -> Group:
    cells = [row.overall for row in rows]
    ends = [[cell.corrected_interval.low, cell.corrected_interval.high] for cell in cells]
    low, high = np.mean(ends, axis=0)
    kept = float(np.mean([cell.corrected for cell in cells]))
    return Group(criterion, dropped, rows[0].sparsity, tuple(rows), kept, Interval(float(low), float(high)))


def by_criterion(found: Iterable[Group]) -> dict[str, list[Group]]:
    """Criterion -> its groups, in order of the number of layers."""
    sorted_: dict[str, list[Group]] = {}
    for group in sorted(found, key=lambda g: (g.criterion, g.dropped)):
        sorted_.setdefault(group.criterion, []).append(group)
    return sorted_


def series(comparison: Comparison) -> dict[str, int]:
    """Criterion -> its number, by which it has the same mark in every figure; dense comes last."""
    names = sorted({row.criterion for row in pruned(comparison)})
    return {name: number for number, name in enumerate([*names, "dense"])}
