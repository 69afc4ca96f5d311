"""The criteria that plugin.toml declares. Reads only that file: no torch is imported here."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, wraps
from importlib import import_module
from typing import Any

from lmms_topoprune._util.packaged import shared_path
from lmms_topoprune.errors import unknown

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REVERSE = "reverse:"


@dataclass(frozen=True)
class Criterion:
    """A rule that scores layers.

    Attributes:
        name: as in plugin.toml.
        prefix: names its models, such as "topopruned".
        score: "module:function", or None for the dense reference.
        defaults: its own values of the options that PruningOptions lets a criterion have.
        state: the states it reads when the user does not say: "residual", "norm", or "none".
        sums: names of the running sums it reads.
        parameters: the options its scores depend on, beside those of the calibration set.
        rule: how its scores become layers when the user does not say.
        rule_without_sparsity: the same when no sparsity is given (the rule finds the count by itself).
        likelihood: it needs the model's loss on the calibration texts.
        reversed: its scores are turned round, so that what it would keep goes first.
        version: raised when the scores would come out differently; part of the cache's key.
    """

    name: str
    prefix: str = ""
    score: str | None = None
    defaults: dict[str, Any] = field(default_factory=dict)
    state: str = "residual"
    sums: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    rule: str = "rank"
    rule_without_sparsity: str | None = None
    likelihood: bool = False
    reversed: bool = False
    version: int = 1

    @property
    def needs_samples(self) -> bool:
        return self.state != "none" or bool(self.sums) or self.likelihood

    def function(self) -> Callable[..., Any]:
        """Takes what the criterion declared, by name; see criteria.scoring.score."""
        if self.score is None:
            raise unknown("criterion", self.name, (n for n, c in criteria().items() if c.score))
        module, name = self.score.split(":")
        function = getattr(import_module(module), name)
        if not self.reversed:
            return function
        reverse = import_module("lmms_topoprune.criteria.reverse").reverse

        @wraps(function)
        def turned(*arguments: Any, **given: Any) -> Any:
            return reverse(function(*arguments, **given))

        return turned


@cache
def criteria() -> dict[str, Criterion]:
    """Every declared criterion by name."""
    with shared_path("plugin.toml").open("rb") as file:
        tables = tomllib.load(file)["criteria"]
    return {name: _criterion({"name": name, **table}) for name, table in tables.items()}


def _criterion(table: dict[str, Any]) -> Criterion:
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}
    return Criterion(**values)


def get(name: str) -> Criterion:
    """The criterion of that name; "reverse:NAME" drops first what NAME would keep longest."""
    turned = name.removeprefix(REVERSE)
    if turned != name and turned in criteria():
        return replace(criteria()[turned], name=name, prefix="", reversed=True)
    if name not in criteria():
        raise unknown("criterion", name, criteria())
    return criteria()[name]
