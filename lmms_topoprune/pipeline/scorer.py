"""Scores of many options from as few calibration passes as possible, looked up and kept between runs."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from lmms_topoprune import registry
from lmms_topoprune._util.disk_cache import Cache
from lmms_topoprune._util.timing import Stages, measured
from lmms_topoprune.calibration.calibration_set import CalibrationSet, CalibrationSets
from lmms_topoprune.calibration.decoder import has_norms
from lmms_topoprune.calibration.loss import LossOracle
from lmms_topoprune.calibration.ranks import Ranks
from lmms_topoprune.calibration.states import DecoderLayers
from lmms_topoprune.calibration.states_file import SavedStates, name_of
from lmms_topoprune.criteria.scoring import (
    Measurements,
    check_samples,
    score,
    score_parameters,
    scores_from_json,
    scores_to_json,
)
from lmms_topoprune.errors import InputError
from lmms_topoprune.options import CHOICES, PruningOptions
from lmms_topoprune.pipeline.cache_schema import CachedScores
from lmms_topoprune.pipeline.calibrate import Reading, calibrate, pass_key, points_read, states_read
from lmms_topoprune.pipeline.checks import resolved
from lmms_topoprune.selection import LayerScores, PairScores

log = logging.getLogger(__name__)

Key = tuple[Any, ...]
CONTENT = "scores and massive layers, images in the processor's size"
"""What a cache entry holds; another text once equal settings come to other scores than before."""


@dataclass(frozen=True)
class Scored:
    """Scores, the calibration set they come from, and what they cost when they were computed.

    Attributes:
        massive: layers that write massive activations, as the same pass saw them.
    """

    scores: LayerScores | PairScores
    calibration: Mapping[str, Any]
    stages: Stages
    massive: tuple[int, ...] = ()


@dataclass
class Scorer:
    """Scores one dense model; remembers what it computed.

    Attributes:
        model, processor: the dense model.
        name: name or path it was loaded from.
        fingerprint: its fingerprint.
        layers: its decoder layers.
        calibrations: draws the samples.
        cache: where scores are looked up and kept between runs.
        ranks: share each pass among these processes, all of which call the same methods.
        progress: show bars.
        states: a folder where hidden states are looked up and kept between runs. A pass then records whatever
            any criterion reads, so that later ones need none.
        passes: how many passes were run.
    """

    model: Any
    processor: Any
    name: str
    fingerprint: str
    layers: DecoderLayers
    calibrations: CalibrationSets
    cache: Cache
    ranks: Ranks
    progress: bool
    states: Path | None = None
    passes: int = 0
    _spare: set[str] = field(default_factory=set)
    _scored: dict[str, Scored] = field(default_factory=dict)
    _described: dict[Key, dict[str, Any]] = field(default_factory=dict)

    def known(self, options: PruningOptions) -> Scored:
        """The scores that `score` found before."""
        return self._scored[_name(options)]

    def is_known(self, options: PruningOptions) -> bool:
        """Whether `score` found them before."""
        return _name(options) in self._scored

    def score(self, wanted: Sequence[PruningOptions], spare: Sequence[PruningOptions] = ()) -> None:
        """Find the scores of all; options with the same samples and prompts share one pass.

        Args:
            wanted: what has to be scored.
            spare: scored along with these, and left out where the samples do not allow it.
        """
        groups: dict[Key, list[PruningOptions]] = {}
        self._spare = {*map(_name, spare)} - {*map(_name, wanted)}
        for options in [*wanted, *(o for o in spare if self._has_samples(o))]:
            if not registry.get(options.criterion).needs_samples:
                self._scored.setdefault(_name(options), unsampled(self.layers, options))
                continue
            check_samples(options, len(self.calibration(options)))
            groups.setdefault(pass_key(options), []).append(options)
        for members in groups.values():
            lacking = self._look_up(members)
            if lacking:
                with self._alone(lacking):
                    # Another process may have been faster while this one waited.
                    if lacking := self._look_up(lacking):
                        self._collect(lacking)

    def _has_samples(self, options: PruningOptions) -> bool:
        try:
            check_samples(options, len(self.calibration(options)))
        except InputError:
            return False
        return True

    def calibration(self, options: PruningOptions) -> CalibrationSet:
        """The calibration set that the options ask for."""
        asked = (options.calibration, options.samples, options.seed)
        return self.calibrations.of(*asked, strict=options.calibration_strict)

    def states_file(self, options: PruningOptions) -> Path | None:
        """Where the hidden states behind such scores are kept; None for nowhere, or if none are read."""
        criterion = registry.get(options.criterion)
        if self.states is None or (criterion.state == "none" and not criterion.sums):
            return None
        read = states_read(options, self._all_criteria(options))
        return self.states / name_of(self.fingerprint, self._describe(options, read))

    def _look_up(self, members: Sequence[PruningOptions]) -> list[PruningOptions]:
        """Those whose scores are neither here nor in the cache, or whose states are to be on the disk."""
        asked = [options for options in members if _name(options) not in self._scored]
        keys = [self._cache_key(options) for options in asked]
        found = self.ranks.first(lambda: [cached_scores(self.cache, key, self.layers.count) for key in keys])
        self._scored |= {_name(o): scored for o, scored in zip(asked, found, strict=True) if scored}
        return [o for o in members if _name(o) not in self._scored or self._lacks_states(o)]

    def _lacks_states(self, options: PruningOptions) -> bool:
        file = self.states_file(options)
        return file is not None and not file.exists()

    @contextmanager
    def _alone(self, members: Sequence[PruningOptions]) -> Iterator[None]:
        """Inside, no other process of this machine computes any of these scores."""
        keys = {str(key): key for key in map(self._cache_key, members)}
        with ExitStack() as stack:
            if self.ranks.rank == 0:
                for _, key in sorted(keys.items()):  # in one order for all, so that nobody waits in a circle
                    stack.enter_context(self.cache.alone(key))
            yield

    def _all_criteria(self, options: PruningOptions) -> tuple[str, ...]:
        """All that this family's states allow, and the one that is asked for."""
        norms = has_norms(self.model)
        found = [
            name for name, criterion in registry.criteria().items() if norms or criterion.state != "norm"
        ]
        return tuple(dict.fromkeys([*found, options.criterion]))

    def _collect(self, members: Sequence[PruningOptions]) -> None:
        """At most one pass that records whatever any member reads, then every member's scores."""
        groups: dict[tuple[Key, Path | None], list[PruningOptions]] = {}
        for options in members:
            groups.setdefault((_vectors(options), self.states_file(options)), []).append(options)
        lacking: list[tuple[Path | None, list[PruningOptions]]] = []
        for (_, file), group in groups.items():
            if file is not None and file.exists():
                saved = SavedStates.load(file)
                found = Measurements(self.layers, saved.states, saved.sums, saved.norms)
                self._score(group, found, {"calibrate": dict(saved.cost)})
            else:
                lacking.append((file, group))
        if lacking:
            self._calibrate(lacking)

    def _calibrate(self, lacking: Sequence[tuple[Path | None, Sequence[PruningOptions]]]) -> None:
        """One pass for groups that read different vectors of it; their files, then their scores."""
        readings = [
            Reading(group[0], self._all_criteria(group[0]) if file else tuple(o.criterion for o in group))
            for file, group in lacking
        ]
        self.passes += any(reading.views or reading.sums for reading in readings)
        stages: Stages = {}
        with measured(stages, "calibrate"):
            collected = calibrate(
                self.model, self.processor, self.calibration(readings[0].options), readings,
                progress=self.progress, ranks=self.ranks,
            )  # fmt: skip
        norms = None if collected.norms is None else collected.norms.summary()
        found = [
            Measurements(self.layers, collected.states(*reading.views), collected.sums, norms)
            for reading in readings
        ]
        for (file, group), reading, part in zip(lacking, readings, found, strict=True):
            if file is not None and norms is not None and self.ranks.rank == 0:
                about = self._describe(group[0], states_read(group[0], reading.criteria))
                whole = (self.layers.count, self.name, self.fingerprint, stages["calibrate"])
                SavedStates(part.states, part.sums.only(reading.sums), norms, about, *whole).save(file.parent)
        for _, group in lacking:
            self._score(group, found.pop(0), stages)  # popped, so that its states can go

    def _score(self, members: Sequence[PruningOptions], found: Measurements, stages: Stages) -> None:
        share_distances(found, members)
        oracles: list[LossOracle] = []

        def loss() -> LossOracle:
            if not oracles:
                calibration, size = self.calibration(members[0]), members[0].calibration_batch
                prompter = calibration.prompter(self.processor)
                answers = calibration.answers(self.model, self.processor)
                oracle = LossOracle.of(
                    self.model, prompter, calibration.samples, size, answers=answers, progress=self.progress
                )
                oracles.append(oracle)
            return oracles[0]

        found = replace(found, loss=loss)

        def reused() -> float:
            return sum(s.reused_seconds for s in found.states.values()) + sum(
                o.reused_seconds for o in oracles
            )

        for options in members:
            if _name(options) in self._scored:
                continue
            own, before = dict(stages), reused()
            with measured(own, "score"):
                scores = self.ranks.first(lambda options=options: self._scores(found, options))  # type: ignore[misc]
            if scores is None:
                continue
            # Every plan tells what it would have cost alone.
            own["score"]["seconds"] = round(own["score"]["seconds"] + reused() - before, 3)
            massive = self.ranks.first(lambda: () if found.norms is None else found.norms.massive)
            self._keep(options, Scored(scores, self._cache_key(options)[2], own, massive))

    def _scores(self, found: Measurements, options: PruningOptions) -> LayerScores | PairScores | None:
        """None where too few tokens were found for what could be done without."""
        try:
            return score(found, resolved(options))
        except InputError as error:
            if _name(options) not in self._spare:
                raise
            log.info("%s proposes nothing: %s", options.criterion, error)
            return None

    def _keep(self, options: PruningOptions, found: Scored) -> None:
        if self.ranks.rank == 0:
            about = {"kind": "scores", "model": self.name, "criterion": options.criterion}
            entry = {"scores": scores_to_json(found.scores), "stages": found.stages}
            self.cache.put(self._cache_key(options), {**entry, "massive": list(found.massive)}, about)
        self._scored[_name(options)] = found

    def _cache_key(self, options: PruningOptions) -> list[Any]:
        """The calibration set as it would be described for this criterion alone, and the rest."""
        read = states_read(resolved(options), [options.criterion])
        return score_key(self.fingerprint, self._describe(options, read), options)

    def described(self, options: PruningOptions) -> dict[str, Any]:
        """What a plan says about the calibration set that its trials alone read."""
        return self._describe(options, ())

    def _describe(self, options: PruningOptions, states: tuple[str, ...]) -> dict[str, Any]:
        """What a plan says about the calibration set; all prompts are hashed once."""
        key = (*pass_key(options), *points_read(options).values(), states)
        if key not in self._described:
            state = "+".join(states) or "none"
            points = points_read(options)
            self._described[key] = self.calibration(options).describe(self.processor, state, **points)
        return dict(self._described[key])


def score_key(fingerprint: str, calibration: Mapping[str, Any], options: PruningOptions) -> list[Any]:
    """What decides scores."""
    return [CONTENT, fingerprint, dict(calibration), options.criterion, score_parameters(resolved(options))]


def cached_scores(cache: Cache, key: list[Any], layers: int) -> Scored | None:
    """Scores of that many layers that an earlier run computed."""
    return cache.get(key, partial(_read, key, layers))


def _read(key: list[Any], layers: int, value: Any) -> Scored:
    entry = CachedScores.model_validate(value)
    scores = scores_from_json(entry.scores.model_dump())
    if scores.layers != layers:
        raise InputError(f"scores of {scores.layers} layers; the model has {layers}")
    if beyond := [layer for layer in entry.massive if layer >= layers]:
        raise InputError(f"massive layers {beyond}; the model has {layers}")
    # What they cost when they were computed; the name says that this run did not pay it.
    paid = {f"{stage} (cached)": cost for stage, cost in entry.stages.items()}
    return Scored(scores, key[2], paid, tuple(entry.massive))


def unsampled(layers: DecoderLayers, options: PruningOptions) -> Scored:
    """Scores of a criterion that needs no samples: cheaper to compute than to look up."""
    return Scored(score(Measurements(layers), resolved(options)), {}, {})


def share_distances(found: Measurements, members: Sequence[PruningOptions]) -> None:
    """Tell the states which k will be asked for, so that neighbors are searched once for all."""
    ks: dict[tuple[str, str], set[int]] = {}
    for options in members:
        criterion = registry.get(options.criterion)
        if "k" in criterion.parameters:  # without a metric among them it may take any
            metrics = (options.metric,) if "metric" in criterion.parameters else CHOICES["metric"]
            for kind in product(metrics, criterion.through):
                ks.setdefault(kind, set()).update(options.ks)
    for states in found.states.values():
        states.shared_ks = {kind: sorted(some) for kind, some in ks.items()}


def _vectors(options: PruningOptions) -> Key:
    """What decides which vectors of which pass are read."""
    return (*pass_key(options), *points_read(options).values(), options.state)


def _name(options: PruningOptions) -> str:
    return str((_vectors(options), options.criterion, score_parameters(resolved(options))))
