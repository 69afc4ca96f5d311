"""What a sweep evaluates: every criterion at every sparsity for every seed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lmms_topoprune.criteria import registry
from lmms_topoprune.errors import OptionError, unknown
from lmms_topoprune.options import PruningOptions

DENSE = "dense"


@dataclass(frozen=True)
class Cell:
    """One place in the grid."""

    criterion: str
    sparsity: float
    seed: int = 0

    @property
    def name(self) -> str:
        """A file name that tells cells apart; the colon of a reversed criterion is no good in one."""
        return f"{self.criterion.replace(':', '_')}-{self.sparsity:g}-seed{self.seed}"

    def options(self, shared: Mapping[str, Any]) -> PruningOptions:
        """The cell's options: the criterion's own defaults, then what the user gave for all."""
        own = {"criterion": self.criterion, "sparsity": self.sparsity, "seed": self.seed}
        return PruningOptions.take({**shared, **own}, **registry.defaults(self.criterion))


@dataclass(frozen=True)
class Grid:
    """Criteria x sparsities x seeds, with options they share.

    Raises:
        OptionError: an unknown criterion, a sparsity out of range, or nothing to evaluate.
    """

    criteria: tuple[str, ...]
    sparsities: tuple[float, ...]
    seeds: tuple[int, ...] = (0,)
    shared: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("criteria", "sparsities", "seeds"):
            if not getattr(self, name):
                raise OptionError(f"{name} is empty; allowed: one or several")
        for sparsity in self.sparsities:
            if not 0 < sparsity < 1:
                raise OptionError(
                    f"sparsity is {sparsity}; allowed: 0 < sparsity < 1 (dense is added by itself)"
                )
        for cell in self.cells():
            if registry.get(cell.criterion).score is None:
                names = [name for name, known in registry.criteria().items() if known.score]
                raise unknown("criterion", cell.criterion, names)
            cell.options(self.shared)

    def cells(self) -> list[Cell]:
        every = itertools.product(self.criteria, self.sparsities, self.seeds)
        return list(dict.fromkeys(Cell(*values) for values in every))
