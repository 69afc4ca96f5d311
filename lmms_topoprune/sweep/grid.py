"""What a sweep evaluates: every criterion at every sparsity for every seed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from lmms_topoprune import registry
from lmms_topoprune.errors import OptionError, unknown
from lmms_topoprune.heal_options import ALLOWED, from_text
from lmms_topoprune.options import PruningOptions

DENSE = "dense"
THRESHOLD = "threshold"
OF_GRID = (
    "sparsity", "drop", "parameters", "tolerance", "layers", "plan", "criterion", "seed", "on_error",
    "self_test",
)  # fmt: skip
"""Options that belong to the grid, or to single runs, and not to a variant of a criterion."""


def parse_variant(text: str) -> tuple[str, dict[str, Any]]:
    """Split "topology:selection=block:k=10" into the criterion and the options it is to have.

    Raises:
        OptionError: no such option, or not a value of its type.
    """
    name, *parts = text.split(":")
    while parts and "=" not in parts[0]:  # reverse:NAME
        name += f":{parts.pop(0)}"
    given: list[str] = []
    for part in parts:
        if "=" in part:
            given.append(part)
        else:  # a value with a colon in it, such as calibration=task:name:split
            given[-1] += f":{part}"
    pairs = (part.partition("=") for part in given)
    return name, {key: _value(key, value) for key, _, value in pairs}


def _value(name: str, text: str) -> Any:
    kinds = {f.name: str(f.type).split(" ")[0] for f in fields(PruningOptions) if f.name not in OF_GRID}
    if name not in kinds:
        raise unknown("option of a criterion", name, kinds)
    try:
        return from_text(kinds[name], text)
    except ValueError:
        raise OptionError(f"{name} is {text!r}; allowed: {ALLOWED[kinds[name]]}") from None


def questions(limit: float | None) -> float | None:
    """How many questions a task is to have: a whole number, or below 1 their share; None and -1 for all.

    Raises:
        OptionError: anything else.
    """
    if limit is None or limit == -1:
        return None
    if not (0 < limit < 1 or (limit >= 1 and float(limit).is_integer())):
        raise OptionError(
            f"limit is {limit}; allowed: whole numbers from 1, a share between 0 and 1, or -1 for all"
        )
    return limit


@dataclass(frozen=True)
class GridPoint:
    """One place in the grid.

    Attributes:
        criterion: a registered name, "reverse:NAME", or a variant such as "topology:selection=block:k=10".
        sparsity: share of the layers to drop; 0 for a threshold, which finds the number by itself.
        seed: of the calibration set.
    """

    criterion: str
    sparsity: float
    seed: int = 0

    @property
    def name(self) -> str:
        """A file name that tells cells apart; colons are no good in one."""
        share = [f"{self.sparsity:g}"] if self.sparsity else []
        safe = "".join(letter if letter.isalnum() or letter in "_-+=." else "_" for letter in self.criterion)
        return "-".join([safe, *share, f"seed{self.seed}"])

    def options(self, shared: Mapping[str, Any]) -> PruningOptions:
        """The cell's options: the criterion's own, then what was given for all, then the variant's."""
        criterion, variant = parse_variant(self.criterion)
        own = {**variant, "criterion": criterion, "sparsity": self.sparsity, "seed": self.seed}
        return PruningOptions(**{**shared, **own})


@dataclass(frozen=True)
class Grid:
    """Criteria x sparsities x seeds, with options they share.

    A criterion with `selection=threshold` has one cell a seed, whatever the sparsities.

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
        for name in self.shared:
            if name not in PruningOptions.names():
                raise unknown("option", name, PruningOptions.names())
        for sparsity in self.sparsities:
            if not (isinstance(sparsity, float | int) and 0 < sparsity < 1):
                raise OptionError(
                    f"sparsity is {sparsity}; allowed: 0 < sparsity < 1 (dense is added by itself)"
                )
        for text in self.criteria:
            name, _ = parse_variant(text)
            if name == DENSE:
                raise unknown("criterion", name, (n for n in registry.criterion_names() if n != DENSE))
            registry.get(name)
        for cell in self.points():
            cell.options(self.shared)

    def points(self) -> list[GridPoint]:
        every = (
            GridPoint(*values) for values in itertools.product(self.criteria, self.sparsities, self.seeds)
        )
        return list(dict.fromkeys(self._placed(cell) for cell in every))

    def _placed(self, cell: GridPoint) -> GridPoint:
        selection = {**self.shared, **parse_variant(cell.criterion)[1]}.get("selection")
        return replace(cell, sparsity=0.0) if selection == THRESHOLD else cell
