"""From the samples of one task to one score a unit, whatever shape the task's metrics have.

What the scores of a task are called in a comparison names its metric, and its filter where it has several.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmms_topoprune._util.checked_files import CorruptFileError
from lmms_topoprune.errors import InputError
from lmms_topoprune.results import sample_files as logged
from lmms_topoprune.results.document_scores import numbers
from lmms_topoprune.results.sample_files import Samples

PREFERRED = ("exact_match", "acc", "accuracy", "score", "anls")
ENDINGS = ("average", "overall", "_all", "accuracy", "acc", "_score", "CIDEr", "ACC@0.5")
"""Of metrics none of which is PREFERRED."""
LARGEST = 1e100
"""Squares of larger scores overflow when they are summed. A broken model's perplexity can be 1e20."""
PAIR_CHANCE = 0.375
"""Two yes/no questions guessed: (acc + acc+) / 2 = (1/2 + 1/4) / 2."""
KNOWN_CHANCE = {"mmbench_en_dev": 0.25, "mmstar": 0.25, "pope": 0.5, "scienceqa_img": 0.36, "ai2d": 0.25}
"""Uniform guessing among the options; tasks of this package declare theirs in metadata.chance."""


@dataclass(frozen=True)
class UnitScores:
    """Scores of one task, one a unit.

    Attributes:
        metric: what the score is, in words.
        units: name of every unit; equal names in two runs are the same unit. None where lmms-eval logs
            nothing that a unit could be scored by.
        scores: (U,), in 0..1 unless `own_scale`.
        chance: score of guessing.
        strata: category of every unit where categories weigh the same, else empty.
        clusters: what every unit belongs to, such as its image, where units go together; else empty.
        own_scale: the scores are no shares: captions' CIDEr, or a measure of which less is better, negated.
        reported: lmms-eval's own number, which stands for the score where there are no units.
        task: the task that lmms-eval evaluated.
    """

    metric: str
    units: tuple[str, ...]
    scores: NDArray[np.float64]
    chance: float
    strata: tuple[str, ...] = ()
    clusters: tuple[str, ...] = ()
    own_scale: bool = False
    reported: float | None = None
    task: str = ""
    _weights: list[NDArray[np.float64]] = field(default_factory=list, repr=False, compare=False)

    @property
    def weights(self) -> NDArray[np.float64]:
        """(U,), summing to 1; the task's score is the sum of scores times weights."""
        if not self._weights:
            self._weights.append(even_weights(self.strata or [""] * len(self.units)))
        return self._weights[0]

    @property
    def score(self) -> float:
        if not self.units:
            return float(self.reported or 0.0)
        return float(self.scores @ self.weights if self.strata else self.scores.mean())

    def of(self, units: Sequence[str]) -> UnitScores:
        """The same for some of the units, in their order."""
        if units is self.units or tuple(units) == self.units:
            return self
        place = {unit: i for i, unit in enumerate(self.units)}
        index = [place[unit] for unit in units]
        return replace(
            self,
            units=tuple(units),
            scores=self.scores[index],
            strata=tuple(self.strata[i] for i in index) if self.strata else (),
            clusters=tuple(self.clusters[i] for i in index) if self.clusters else (),
            _weights=[],
        )


def even_weights(strata: Sequence[str]) -> NDArray[np.float64]:
    """(U,) summing to 1: strata weigh the same, and so do the units in each."""
    sizes = Counter(strata)
    if len(sizes) == 1:
        return np.full(len(strata), 1 / len(strata))
    return np.array([1 / (len(sizes) * sizes[name]) for name in strata])


def task_scores(
    task: str, samples: Samples, results: Mapping[str, Any], metric: str | None = None
) -> dict[str, UnitScores]:
    """Score a task from its samples: one entry, or one a filter where the task has several.

    A metric that carries a `question_id` beside its score is scored as MME is: both questions of an image
    are one unit, worth (acc + acc+) / 2, and every category weighs the same. Where no document can be
    scored, lmms-eval's own number stands without units.

    Args:
        task: its name.
        samples: its rows.
        results: the whole results file.
        metric: the metric to use, or "metric,filter"; by default PREFERRED, or the most telling name.

    Raises:
        InputError: no such metric, or the rows contradict the results file.
    """
    wanted, _, only = (metric or "").partition(",")
    found = {}
    for name, rows in _by_filter(task, samples, results):
        if only and name != only:
            continue
        key = task if name is None else f"{task} [{name}]"
        found[key] = _score(task, rows, name, samples, results, wanted)
    if not found:
        raise InputError(f"task {task!r} has no filter {only!r}")
    return found


def _by_filter(
    task: str, samples: Samples, results: Mapping[str, Any]
) -> Iterator[tuple[str | None, NDArray[np.int64]]]:
    """(filter, its rows); the filter is None where there is one. Rows of a document are ordered as logged.

    lmms-eval logs a document once for every filter, and does not say which.
    """
    every = np.arange(len(samples))
    if samples.documents == len(samples):
        yield None, every
        return
    if "filter" in samples.columns:
        told = np.array([str(name) for name in logged.objects(samples.columns["filter"])])
        names = list(dict.fromkeys(told.tolist()))
        for name in names:
            yield (name if len(names) > 1 else None), np.flatnonzero(told == name)
        return
    names = _filters(results["configs"][task], results["results"].get(task, {}))
    counts = Counter(samples.ids)
    if len(names) < 2 or len(counts) == len(samples) or any(n % len(names) for n in counts.values()):
        yield None, every
        return
    place, seen = np.empty(len(samples), dtype=int), Counter[str]()
    for row, document in enumerate(samples.ids):
        place[row] = seen[document] * len(names) // counts[document]
        seen[document] += 1
    for number, name in enumerate(names):
        yield name, np.flatnonzero(place == number)


def _filters(config: Mapping[str, Any], reported: Mapping[str, Any]) -> list[str]:
    """Names of a task's filters, in the order in which they are applied and logged."""
    listed = config.get("filter_list")
    if isinstance(listed, list) and all(isinstance(entry, Mapping) for entry in listed):
        return [str(entry.get("name")) for entry in listed]
    return list(dict.fromkeys(name.partition(",")[2] for name in reported if "," in name))


def _score(
    task: str,
    rows: NDArray[np.int64],
    filter_name: str | None,
    samples: Samples,
    results: Mapping[str, Any],
    wanted: str,
) -> UnitScores:
    config = results["configs"][task]
    higher = dict(results.get("higher_is_better", {}).get(task) or {})
    reported = reported_metrics(results["results"].get(task, {}), filter_name)
    names = [name for name in samples.columns if name != "filter"]
    if wanted and wanted not in {*names, *reported}:
        raise InputError(
            f"task {task!r} has no metric {wanted!r}; it has {', '.join(sorted({*names, *reported}))}"
        )
    level = _declared_chance(config)
    known = {n for n in names if n in higher or n in reported} or set(names)
    candidates = [wanted] if wanted else [n for n in names if n in known]
    columns = {name: _taken(samples.columns[name], rows) for name in candidates if name in names}
    paired = [name for name in sorted(columns) if _in_pairs(columns[name])]
    suffix = f", filter {filter_name}" if filter_name else ""
    key = str(config.get("score_key") or "score")
    part = filter_name is None and len(rows) < len(samples)  # of filters that nobody can tell apart
    if paired:
        for name in paired:
            values, how = numbers(name, columns[name], key) or (np.empty(0), "")
            _check_reported(task, name, values, None if part else reported.get(name), how, config)
        return replace(_pairs(task, columns, paired, level), task=task)
    found = {n: f for n, c in columns.items() if (f := numbers(n, c, key)) is not None}
    better = {n: f for n, f in found.items() if higher.get(n) is not False} or found
    if not better:
        return _aggregate(task, reported, higher, wanted, suffix)
    name = _preferred({n: int(np.isfinite(values).sum()) for n, (values, _) in better.items()})
    values, how = better[name]
    _check_reported(task, name, values, None if part else reported.get(name), how, config)
    ids = samples.ids if len(rows) == len(samples) else [samples.ids[i] for i in rows]
    units, means = _by_document(ids, values, len(rows) == samples.documents)
    means, name, own_scale = _upward(name, means, higher.get(name) is False)
    fallback = KNOWN_CHANCE.get(task, 0.0)
    return UnitScores(
        metric=name + (f" ({how})" if how not in ("as logged", "its score") else "") + suffix,
        units=units,
        scores=means,
        chance=(0.0 if own_scale else fallback) if level is None else level,
        clusters=_clusters(config.get("cluster_key"), columns, samples, rows, values),
        own_scale=own_scale,
        task=task,
    )


def reported_metrics(metrics: Mapping[str, Any], filter_name: str | None = None) -> dict[str, float]:
    """Metric -> value of one filter, or of the first, without lmms-eval's standard errors."""
    found: dict[str, float] = {}
    for name, value in metrics.items():
        metric, comma, by = name.partition(",")
        is_number = comma and "_stderr" not in metric and isinstance(value, (int, float))
        if is_number and filter_name in (None, by):
            found.setdefault(metric, float(value))
    return found


def _taken(column: logged.Column, rows: NDArray[np.int64]) -> logged.Column:
    if len(rows) == len(column):
        return column
    taken: logged.Column = [column[i] for i in rows] if isinstance(column, list) else column.take(rows)  # type: ignore[union-attr]
    return taken


def _preferred(present: Mapping[str, int]) -> str:
    """The metric that a task is known by: one that every document has, by name."""
    most = max(present.values())
    full = sorted(name for name, count in present.items() if count == most)
    named = next((name for name in PREFERRED if name in full), None)
    return named or next((n for end in ENDINGS for n in full if n.endswith(end)), full[0])


def _by_document(
    ids: Sequence[str], values: NDArray[np.float64], once: bool
) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Units and scores: the mean over a document's rows, its repeats; documents without a score are none."""
    if once and np.isfinite(values).all():
        return tuple(ids), values
    repeats: dict[str, list[float]] = {}
    for document, value in zip(ids, values.tolist(), strict=True):
        if value == value:
            repeats.setdefault(document, []).append(value)
    return tuple(repeats), np.array([float(np.mean(v)) for v in repeats.values()])


def _upward(
    name: str, scores: NDArray[np.float64], less_is_better: bool
) -> tuple[NDArray[np.float64], str, bool]:
    """The scores so that more is better, the metric's new name, and whether they have their own scale."""
    if len(wrong := scores[~(np.abs(scores) <= LARGEST)]):  # not a number, too
        raise InputError(f"metric {name!r} has a score of {wrong[0]:g}; allowed: numbers up to {LARGEST:g}")
    share = bool(scores.min() >= 0 and scores.max() <= 1)
    if not less_is_better:
        return scores, name, not share
    return (1 - scores, f"1 - {name}", False) if share else (-scores, f"-{name}, less is better", True)


def _aggregate(
    task: str, reported: Mapping[str, float], higher: Mapping[str, Any], wanted: str, suffix: str
) -> UnitScores:
    """lmms-eval's own number, for a task whose documents cannot be scored."""
    names = {n: v for n, v in reported.items() if not wanted or n == wanted}
    better = {n: v for n, v in names.items() if higher.get(n) is not False} or names
    if not better:
        raise InputError(f"task {task!r} has no metric that is a number, of a document or of all")
    name = _preferred(dict.fromkeys(better, 1))
    value, label, own_scale = _upward(name, np.array([better[name]]), higher.get(name) is False)
    label = f"{label} as lmms-eval reports it, no documents{suffix}"
    chance = 0.0 if own_scale else KNOWN_CHANCE.get(task, 0.0)
    return UnitScores(
        label, (), np.empty(0), chance, own_scale=own_scale, reported=float(value[0]), task=task
    )


def _check_reported(
    task: str,
    name: str,
    values: NDArray[np.float64],
    reported: float | None,
    how: str,
    config: Mapping[str, Any],
) -> None:
    """A plain mean that the results file reports has to be that of the rows.

    Raises:
        InputError: it is not.
    """
    listed = config.get("metric_list")
    entries = [e for e in listed if isinstance(e, Mapping)] if isinstance(listed, list) else []
    mean = any(e.get("metric") == name and _is_mean(e.get("aggregation")) for e in entries)
    if reported is None or not mean or how not in ("as logged", "its score"):
        return
    found = float(np.nanmean(values))
    if abs(found - reported) > 1e-6 * max(1.0, abs(reported)):
        raise CorruptFileError(
            f"task {task!r}: the mean of {name} is {found:.6g} in the samples, {reported:.6g} in the results",
            "one of the two files was changed or belongs to another run; evaluate again",
        )


def _is_mean(aggregation: Any) -> bool:
    """lmms-eval writes a function's name, or its source text; `mean_score` is this package's."""
    text = str(aggregation)
    return text in ("mean", "acc") or bool(re.search(r"\bmean_score\b", text))


def _clusters(
    key: Any,
    columns: Mapping[str, logged.Column],
    samples: Samples,
    rows: NDArray[np.int64],
    values: NDArray[np.float64],
) -> tuple[str, ...]:
    """The cluster of every unit, by the field that the task names; empty if no row tells it."""
    if not isinstance(key, str) or not key:
        return ()
    places = [logged.field(column, key) for column in columns.values() if logged.has_fields(column)]
    places += [_taken(samples.columns[key], rows)] if key in samples.columns else []
    for place in places:
        names = logged.objects(place)
        of = {
            samples.ids[row]: str(name)
            for row, name, value in zip(rows, names, values, strict=True)
            if name is not None and value == value
        }
        units = dict.fromkeys(
            samples.ids[row] for row, value in zip(rows, values, strict=True) if value == value
        )
        if units and all(unit in of for unit in units):
            return tuple(of[unit] for unit in units)
    return ()


def _declared_chance(config: Mapping[str, Any]) -> float | None:
    """`metadata.chance` of a task, written in YAML as a mapping or as a list of mappings."""
    metadata = config.get("metadata")
    for entry in metadata if isinstance(metadata, list) else [metadata]:
        if isinstance(entry, Mapping) and isinstance(entry.get("chance"), (int, float)):
            return float(entry["chance"])
    return None


def _in_pairs(column: logged.Column) -> bool:
    """Whether a metric names the image of each question, and most images have two."""
    if not logged.has_fields(column) or all(
        v is None for v in logged.objects(logged.field(column, "question_id"))
    ):
        return False
    values = [value for value in logged.objects(column) if value is not None]
    if not all(isinstance(value, Mapping) and {"question_id", "score"} <= set(value) for value in values):
        return False
    groups = Counter((str(value.get("category", "")), str(value["question_id"])) for value in values)
    return sum(count == 2 for count in groups.values()) > len(groups) / 2


def _pairs(
    task: str, columns: Mapping[str, logged.Column], metrics: Sequence[str], chance: float | None
) -> UnitScores:
    groups: dict[tuple[str, str], list[float]] = {}
    for values in zip(*(logged.objects(columns[name]) for name in metrics), strict=True):
        value = next((value for value in values if value is not None), None)
        if value is not None:
            score = value.get("score")
            if not isinstance(score, (bool, int, float)):
                raise InputError(f"task {task!r}: question {value['question_id']!r} has no score")
            groups.setdefault((str(value.get("category", "")), str(value["question_id"])), []).append(
                float(score)
            )
    broken = next((key for key, scores in groups.items() if len(scores) > 2), None)
    if broken is not None:
        raise InputError(
            f"task {task!r}: image {broken[1]!r} has {len(groups[broken])} questions instead of 2"
        )
    # An odd --limit cuts the last image in two.
    groups = {key: scores for key, scores in groups.items() if len(scores) == 2}
    scores = np.array([(np.mean(s) + (sum(s) == 2)) / 2 for s in groups.values()])
    scores, _, own_scale = _upward(metrics[0], scores, False)
    if own_scale:
        raise InputError(
            f"metric {metrics[0]!r} of task {task!r} ranges from {scores.min():g} to {scores.max():g}; "
            "comparison needs 0 to 1 per document"
        )
    return UnitScores(
        metric="(acc + acc+) / 2",
        units=tuple(f"{category}/{question}" for category, question in groups),
        scores=scores,
        chance=PAIR_CHANCE if chance is None else chance,
        strata=tuple(category for category, _ in groups),
    )
