"""Several models side by side: what each keeps of its own dense score, never one's score beside another's.

`published` makes one small file of a model's comparison, for boards of other people.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, Field, FiniteFloat

from lmms_topoprune._util import escape
from lmms_topoprune._util.checked_files import checked, read_object
from lmms_topoprune.comparison.columns import DASH, interval, percent
from lmms_topoprune.comparison.side_by_side import Comparison, Row, compare
from lmms_topoprune.comparison.statistics import NONE, Interval
from lmms_topoprune.errors import InputError
from lmms_topoprune.results.reading import Run

SCHEMA = "topoprune-published/1"


class Entry(BaseModel):
    """What one pruned model keeps.

    Attributes:
        label: criterion with its options and sparsity, without the seed.
        retention, corrected: of its own dense model's score; None where undefined.
        low, high: 95 % interval of `corrected`.
        scores: task -> score.
        plan: the whole plan.
    """

    label: str = Field(max_length=500)
    criterion: str = Field(max_length=500)
    sparsity: FiniteFloat = Field(ge=0, lt=1)
    dropped: str = Field(max_length=20_000)
    retention: FiniteFloat | None = None
    corrected: FiniteFloat | None = None
    low: FiniteFloat | None = None
    high: FiniteFloat | None = None
    p: FiniteFloat | None = None
    scores: dict[str, FiniteFloat | None] = {}
    cost: dict[str, FiniteFloat] = {}
    plan: dict[str, Any] | None = None

    @property
    def interval(self) -> Interval:
        return NONE if self.low is None or self.high is None else Interval(self.low, self.high)


class Model(BaseModel):
    """One dense model with all that was pruned from it.

    Attributes:
        name: as a table calls it.
        fingerprint: of its weights.
        tasks: task -> metric.
        units: task -> how many units were compared.
        versions: of the packages that answered.
    """

    name: str = Field(max_length=500)
    fingerprint: str | None = None
    tasks: dict[str, str]
    units: dict[str, int] = {}
    dense: dict[str, FiniteFloat | None] = {}
    versions: dict[str, str] = {}
    entries: list[Entry]


class Published(BaseModel):
    """The file."""

    models: list[Model] = Field(min_length=1)


@dataclass(frozen=True)
class Leaderboard:
    """Criteria by models.

    Attributes:
        models: in the order given; names are distinct.
        labels: of the rows, the best mean over models first.
        cells: (label, model name) -> the entry.
    """

    models: tuple[Model, ...]
    labels: tuple[str, ...]
    cells: Mapping[tuple[str, str], Entry]

    def mean(self, label: str) -> float:
        """Chance-corrected retention, mean over all models; nan unless every one of them has it."""
        found = [self.cells.get((label, model.name)) for model in self.models]
        kept = [np.nan if entry is None or entry.corrected is None else entry.corrected for entry in found]
        return float(np.mean(kept))

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Headings and texts: the retention over chance of each model, with its interval, and the mean."""
        lines = []
        for label in self.labels:
            own = [self.cells.get((label, model.name)) for model in self.models]
            lines.append([label, *map(_text, own), percent(self.mean(label))])
        return ["criterion", *(model.name for model in self.models), "mean"], lines

    def caption(self) -> str:
        tasks = {tuple(sorted(model.tasks)) for model in self.models}
        note = (
            ""
            if len(tasks) == 1
            else " The models were not evaluated on the same tasks: "
            + "; ".join(f"{model.name}: {', '.join(model.tasks)}" for model in self.models)
        )
        return (
            "Percent of each model's own dense score over chance that is kept, with 95 % intervals over "
            f"documents and calibration seeds; the mean is over models that all have the row.{note}"
        )

    def markdown(self) -> str:
        head, lines = self.table()
        rows = ["| " + " | ".join(map(escape.markdown, line)) + " |" for line in [head, *lines]]
        rule = "|---|" + "---:|" * (len(head) - 1)
        return "\n".join([rows[0], rule, *rows[1:], "", escape.markdown(self.caption()), ""])

    def to_json(self) -> dict[str, Any]:
        found = {
            label: {m.name: e.corrected for m in self.models if (e := self.cells.get((label, m.name)))}
            for label in self.labels
        }
        return {"schema": "topoprune-leaderboard/1", "retention_over_chance": found, **_models(self.models)}


def _text(entry: Entry | None) -> str:
    if entry is None or entry.corrected is None:
        return DASH
    around = interval(entry.interval)
    return percent(entry.corrected) + ("" if around == DASH else f" ({around})")


def leaderboard(models: Sequence[Model]) -> Leaderboard:
    """Put models side by side; models of one name are told apart by their weights or place.

    Raises:
        InputError: there is no model.
    """
    if not models:
        raise InputError("there is no model to put on a leaderboard")
    named = _distinct(models)
    cells = {(entry.label, model.name): entry for model in named for entry in model.entries}

    def best(label: str) -> tuple[int, float]:
        found = [cells[label, model.name].corrected for model in named if (label, model.name) in cells]
        kept = [share for share in found if share is not None]
        return (-len(kept), -float(np.mean(kept)) if kept else 0.0)

    return Leaderboard(
        tuple(named), tuple(sorted(dict.fromkeys(label for label, _ in cells), key=best)), cells
    )


def _distinct(models: Sequence[Model]) -> list[Model]:
    """Models under names of their own: with their weights' hash where two share a name, else numbered."""
    shared = Counter(model.name for model in models)
    seen, found = Counter[str](), []
    for model in models:
        weights = f" ({model.fingerprint[:6]})" if shared[model.name] > 1 and model.fingerprint else ""
        seen[model.name + weights] += 1
        number = seen[model.name + weights]
        name = f"{model.name}{weights}" + (f" #{number}" if number > 1 else "")
        found.append(model.model_copy(update={"name": name}))
    return found


def models_of(runs: Iterable[Run], distinct: Any, **options: Any) -> list[Model]:
    """Every model among the runs with what was pruned from it, each compared with its own dense run.

    Args:
        runs: of any models.
        distinct: gives the runs of one model labels of their own.
        options: of `compare`.

    Raises:
        InputError: a model has no dense run, or runs that are not comparable.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(_model_of(run), []).append(run)
    found = []
    for members in groups.values():
        own = distinct(sorted(members, key=lambda run: not run.is_dense))
        found.append(_model(compare(own, **options), own))
    return found


def _model_of(run: Run) -> str:
    """What tells models apart: their weights, or what was asked to be loaded."""
    if run.plan is not None:
        return run.plan.fingerprint
    return str(run.facts.get("weights") or run.facts.get("model_args pretrained") or run.label)


def _model(comparison: Comparison, runs: Sequence[Run]) -> Model:
    plans = {run.label: run.plan for run in runs if run.plan is not None}
    first = next(iter(plans.values()), None)
    rows = [row for row in comparison.rows if row.label != comparison.dense]
    name = (
        first.model if first is not None else str(runs[0].facts.get("model_args pretrained") or runs[0].label)
    )
    told = {
        n.removesuffix(" version"): str(v) for n, v in runs[0].facts.items() if n.endswith(" version") and v
    }
    return Model(
        name=Path(name.removeprefix("pretrained=").split(",")[0]).name or name,
        fingerprint=None if first is None else first.fingerprint,
        tasks=dict(comparison.tasks),
        units=dict(comparison.units),
        dense=_scores(comparison.rows[0]),
        versions=told,
        entries=[_entry(row, plans) for row in rows],
    )


def _entry(row: Row, plans: Mapping[str, Any]) -> Entry:
    plan = plans.get(next(iter(row.runs), row.label))
    cell = row.overall
    return Entry(
        label=row.label.partition(" (")[0] if len(row.runs) > 1 else row.label,
        criterion=row.criterion,
        sparsity=row.sparsity,
        dropped=row.dropped,
        retention=_known(cell.retention),
        corrected=_known(cell.corrected),
        low=_known(cell.corrected_interval.low),
        high=_known(cell.corrected_interval.high),
        p=_known(cell.p_holm),
        scores=_scores(row),
        cost=dict(row.cost),
        plan=None if plan is None else json.loads(json.dumps(plan.to_json())),
    )


def _scores(row: Row) -> dict[str, float | None]:
    return {task: _known(cell.score) for task, cell in row.cells.items()}


def _known(value: float) -> float | None:
    return escape.number(value) if math.isfinite(value) else None


def published(models: Sequence[Model]) -> str:
    """The models as one small file: results, plans, fingerprints and versions, no answers."""
    return json.dumps({"schema": SCHEMA, **_models(models)}, indent=1, allow_nan=False) + "\n"


def _models(models: Sequence[Model]) -> dict[str, Any]:
    return {"models": [model.model_dump() for model in models]}


def is_published(path: Path) -> bool:
    return path.is_file() and path.suffix == ".json" and not path.name.endswith("_results.json")


def read_published(path: Path) -> list[Model]:
    """The models of a published file.

    Raises:
        InputError: it is no such file, or a field of it is malformed.
    """
    value = read_object(path)
    if value.get("schema") != SCHEMA:
        raise InputError(f"{str(path)!r} is no file of `topoprune publish`")
    return checked(Published, value, path, "file of `topoprune publish`").models
