"""Pruned models of one criterion and one number of dropped layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lmms_topoprune.comparison.side_by_side import Comparison, Row
from lmms_topoprune.comparison.statistics import Interval, corrected_retention
from lmms_topoprune.plan import parse_layers


@dataclass(frozen=True)
class Group:
    """A row of the comparison as the figures need it.

    Attributes:
        criterion: its variant.
        dropped: number of layers; the rounded mean where seeds differ.
        sparsity: their share.
        runs: labels of its runs, one a seed -> chance-corrected retention.
        kept: the same of their mean.
        interval: of `kept`, 95 %, over documents and seeds.
    """

    criterion: str
    dropped: int
    sparsity: float
    runs: Mapping[str, float]
    kept: float
    interval: Interval

    @property
    def name(self) -> str:
        return f"{self.criterion}, {self.dropped} layers"


def groups(comparison: Comparison) -> list[Group]:
    """All groups, by criterion and then by the number of layers; of equal ones that with the most runs."""
    found: dict[str, Group] = {}
    for row in sorted(pruned(comparison), key=lambda row: len(row.runs)):
        group = _group(row, comparison)
        found[group.name] = group
    return sorted(found.values(), key=lambda group: (group.criterion, group.dropped))


def together(comparison: Comparison) -> Sequence[Row]:
    """The rows, with calibration seeds put together."""
    return comparison.together or comparison.rows


def pruned(comparison: Comparison) -> list[Row]:
    return [row for row in together(comparison) if row.criterion != "dense"]


def _group(row: Row, comparison: Comparison) -> Group:
    cell = row.overall
    dense = dense_row(comparison).overall
    scores, most = np.array(list(row.runs.values())), np.asarray(dense.score)
    kept = corrected_retention(scores, most, cell.chance).tolist()
    return Group(
        row.criterion,
        layers_dropped(row),
        row.sparsity,
        dict(zip(row.runs, kept, strict=True)),
        cell.corrected,
        cell.corrected_interval,
    )


def dense_row(comparison: Comparison) -> Row:
    """The row that retention refers to."""
    return next(row for row in (*comparison.rows, *comparison.together) if row.label == comparison.dense)


def layers_dropped(row: Row) -> int:
    """Number of layers; the rounded mean where the seeds of a threshold differ."""
    counts = [0 if text == "none" else len(parse_layers(text)) for text in row.dropped.split(" / ")]
    return round(float(np.mean(counts)))


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
