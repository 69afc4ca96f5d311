"""From the samples of one task to one score a unit, in 0..1, whatever shape the task's metrics have."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmms_topoprune.errors import InputError

PREFERRED = ("exact_match", "acc", "accuracy", "score", "anls")
PAIR_CHANCE = 0.375
"""Two yes/no questions guessed: (acc + acc+) / 2 = (1/2 + 1/4) / 2."""
KNOWN_CHANCE = {"mmbench_en_dev": 0.25, "mmstar": 0.25, "pope": 0.5, "scienceqa_img": 0.36, "ai2d": 0.25}
"""Uniform guessing among the options; tasks of this package declare theirs in metadata.chance."""


@dataclass(frozen=True)
class UnitScores:
    """Scores of one task, one a unit.

    Attributes:
        metric: what the score is, in words.
        units: name of every unit; equal names in two runs are the same unit.
        scores: (U,) in 0..1.
        weights: (U,), summing to 1; the task's score is their product's sum.
        chance: score of guessing.
        strata: category of every unit where categories weigh the same, else empty.
    """

    metric: str
    units: tuple[str, ...]
    scores: NDArray[np.float64]
    weights: NDArray[np.float64]
    chance: float
    strata: tuple[str, ...] = ()

    @property
    def score(self) -> float:
        return float(self.scores @ self.weights)

    def of(self, units: Sequence[str]) -> UnitScores:
        """The same for some of the units, in their order."""
        place = {unit: i for i, unit in enumerate(self.units)}
        index = [place[unit] for unit in units]
        strata = tuple(self.strata[i] for i in index) if self.strata else ()
        return replace(
            self,
            units=tuple(units),
            scores=self.scores[index],
            weights=even_weights(strata or [""] * len(index)),
            strata=strata,
        )


def even_weights(strata: Sequence[str]) -> NDArray[np.float64]:
    """(U,) summing to 1: strata weigh the same, and so do the units in each."""
    sizes = Counter(strata)
    return np.array([1 / (len(sizes) * sizes[name]) for name in strata])


def unit_scores(
    task: str, samples: Sequence[Mapping[str, Any]], metrics: Iterable[str], chance: float | None
) -> UnitScores:
    """Score a task from its samples.

    A metric that carries a `question_id` beside its score is scored as MME is: both questions of an image
    are one unit, worth (acc + acc+) / 2, and every category weighs the same.

    Raises:
        InputError: the samples hold no metric that is a number or a {"score": number}.
    """
    metrics = set(metrics)
    present = Counter(name for sample in samples for name in metrics if _number(sample.get(name)) is not None)
    paired = [name for name in sorted(present) if _in_pairs(samples, name)]
    if paired:
        return _pairs(task, samples, paired, chance)
    if not present:
        raise InputError(f"task {task!r} has no metric that is a number for every document")
    full = [name for name in sorted(present) if present[name] == len(samples)] or sorted(present)
    metric = next((name for name in PREFERRED if name in full), full[0])
    values = {str(s["doc_id"]): _number(s.get(metric)) for s in samples}
    units = {unit: value for unit, value in values.items() if value is not None}
    scores = _in_range(task, metric, np.array(list(units.values())))
    level = KNOWN_CHANCE.get(task, 0.0) if chance is None else chance
    return UnitScores(metric, tuple(units), scores, even_weights([""] * len(units)), level)


def _in_pairs(samples: Sequence[Mapping[str, Any]], name: str) -> bool:
    """Whether a metric names the image of each question, and most images have two."""
    values = [sample[name] for sample in samples if sample.get(name) is not None]
    if not all(isinstance(value, Mapping) and "question_id" in value for value in values):
        return False
    groups = Counter((str(value.get("category", "")), str(value["question_id"])) for value in values)
    return sum(count == 2 for count in groups.values()) > len(groups) / 2


def _number(value: Any) -> float | None:
    if isinstance(value, Mapping):
        value = value.get("score")
    return float(value) if isinstance(value, (bool, int, float)) else None


def _in_range(task: str, metric: str, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    if not np.isfinite(scores).all() or scores.min() < 0 or scores.max() > 1:
        raise InputError(
            f"metric {metric!r} of task {task!r} ranges from {scores.min():g} to {scores.max():g}; "
            "comparison needs 0 to 1 per document"
        )
    return scores


def _pairs(
    task: str, samples: Sequence[Mapping[str, Any]], metrics: Sequence[str], chance: float | None
) -> UnitScores:
    groups: dict[tuple[str, str], list[float]] = defaultdict(list)
    for sample in samples:
        value = next((sample[m] for m in metrics if sample.get(m) is not None), None)
        if value is not None:
            score = _number(value)
            if score is None:
                raise InputError(f"task {task!r}: question {value['question_id']!r} has no score")
            groups[str(value.get("category", "")), str(value["question_id"])].append(score)
    broken = next((key for key, scores in groups.items() if len(scores) > 2), None)
    if broken is not None:
        raise InputError(
            f"task {task!r}: image {broken[1]!r} has {len(groups[broken])} questions instead of 2"
        )
    # An odd --limit cuts the last image in two.
    groups = {key: scores for key, scores in groups.items() if len(scores) == 2}
    strata = tuple(category for category, _ in groups)
    scores = np.array([(np.mean(s) + (sum(s) == 2)) / 2 for s in groups.values()])
    names = tuple(f"{category}/{question}" for category, question in groups)
    scores = _in_range(task, metrics[0], scores)
    level = PAIR_CHANCE if chance is None else chance
    return UnitScores("(acc + acc+) / 2", names, scores, even_weights(strata), level, strata)
