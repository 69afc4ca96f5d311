"""Plans for many options of one model, from as few calibration passes as possible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lmms_topoprune import planning, registry
from lmms_topoprune._util.cache import Cache
from lmms_topoprune._util.timing import Stages, measured
from lmms_topoprune.calibrating import Reading, calibrate_together, describe, load, pass_key, states_read
from lmms_topoprune.calibration.decoder import has_norms
from lmms_topoprune.calibration.evidence import Evidence
from lmms_topoprune.calibration.likelihood import Likelihood
from lmms_topoprune.calibration.samples import Sample
from lmms_topoprune.calibration.sources import Reader
from lmms_topoprune.calibration.states_file import Kept, name_of
from lmms_topoprune.criteria.scoring import score, score_parameters, scores_from_json, scores_to_json
from lmms_topoprune.errors import OptionError
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.plan import PruningPlan
from lmms_topoprune.planning import Scored
from lmms_topoprune.repair.apply import planned
from lmms_topoprune.selection import PairScores
from lmms_topoprune.surgery import decoder_layers, fingerprint, undeletable

Key = tuple[Any, ...]


@dataclass
class Planner:
    """Remembers samples, hidden states and scores between plans; each plan equals `make_plan`'s.

    Attributes:
        model, processor: the dense model.
        name: name or path it was loaded from.
        readers: further calibration sources.
        progress: show calibration bars.
        cache: where scores are looked up and kept between runs.
        states: a folder where hidden states are looked up and kept between runs. A pass then keeps whatever
            any criterion reads, so that later ones need none.
    """

    model: Any
    processor: Any
    name: str
    readers: Mapping[str, Reader] | None = None
    progress: bool = False
    cache: Cache = field(default_factory=Cache.default)
    states: Path | None = None
    passes: int = 0
    _samples: dict[Key, Sequence[Sample]] = field(default_factory=dict)
    _scored: dict[str, Scored] = field(default_factory=dict)
    _descriptions: dict[Key, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.layers = len(decoder_layers(self.model))
        self.forbidden = frozenset(undeletable(self.model))
        self.fingerprint = fingerprint(self.model)

    def check(self, wanted: Sequence[PruningOptions]) -> None:
        """Refuse what cannot be planned before anything is computed.

        Raises:
            OptionError: more layers are asked for than may go, or options contradict each other.
        """
        for options in wanted:
            planning.check_budget(planning.resolved(options), self.layers, self.forbidden)

    def check_drops(self, wanted: Sequence[PruningOptions]) -> None:
        """Refuse a sparsity that rounds to no layer: its model would be the dense one under another name.

        Raises:
            OptionError: names the sparsity.
        """
        for options in wanted:
            if options.sparsity and not options.drop_count(self.layers):  # a threshold has sparsity 0
                raise OptionError(
                    f"sparsity is {options.sparsity}, which drops 0 of {self.layers} layers; "
                    f"allowed: sparsity above {0.5 / self.layers:.4f} (dense is added by itself)"
                )

    def draws(self, options: PruningOptions) -> bool:
        """Whether a plan with these options depends on calibration samples."""
        return options.repair != "none" or registry.get(options.criterion).needs_samples

    def dense(self) -> PruningPlan:
        """The plan that drops nothing."""
        options = PruningOptions(criterion="dense")
        return planning.make_plan(self.model, self.processor, options, name=self.name, progress=False)

    def plans(self, wanted: Sequence[PruningOptions]) -> list[PruningPlan]:
        """One plan for each, in order; options with the same samples and prompts share one pass."""
        groups: dict[Key, list[PruningOptions]] = {}
        for options in wanted:
            if not self._known(options) or self._lacks_states(options):
                groups.setdefault(pass_key(options), []).append(options)
        for members in groups.values():
            self._collect(members)
        return [self._plan(options) for options in wanted]

    def similarity(self, options: PruningOptions) -> list[list[float]] | None:
        """(S, S) similarity of states behind a plan that was made here; None for scores of single layers."""
        found = self._scored[self._key(options)].scores
        return found.values.tolist() if isinstance(found, PairScores) else None

    def barcodes(self, options: PruningOptions) -> list[Mapping[str, Any]]:
        """The barcodes behind a plan that was made here, as criteria.topology.kept describes them."""
        return list(self._scored[self._key(options)].scores.barcodes)

    def _plan(self, options: PruningOptions) -> PruningPlan:
        found = self._scored[self._key(options)]
        plan = planning.plan_from(self.model, planning.resolved(options), self.name, found, self.forbidden)
        if options.repair == "none":
            return plan
        return planned(plan, self.processor, options, self._samples_for(options))

    def _known(self, options: PruningOptions) -> bool:
        """Whether the scores are here, or in the cache, or so cheap that they are now."""
        key = self._key(options)
        if key in self._scored:
            return True
        if not registry.get(options.criterion).needs_samples:
            bare = Evidence(self.layers, forbidden=self.forbidden)
            self._scored[key] = Scored(score(bare, planning.resolved(options)), {}, {})
            return True
        facts = self._facts(options)
        kept = self.cache.get(self._cache_key(options, facts))
        if kept:
            self._scored[key] = Scored(scores_from_json(kept["scores"]), facts, kept["stages"])
        return bool(kept)

    def states_file(self, options: PruningOptions) -> Path | None:
        """Where the hidden states behind such a plan are kept; None for nowhere, or if it reads none."""
        criterion = registry.get(options.criterion)
        if self.states is None or (criterion.state == "none" and not criterion.sums):
            return None
        read = states_read(options, self._all_criteria(options))
        return self.states / name_of(self.fingerprint, self._described(options, read))

    def _lacks_states(self, options: PruningOptions) -> bool:
        file = self.states_file(options)
        return file is not None and not file.exists()

    def _all_criteria(self, options: PruningOptions) -> tuple[str, ...]:
        """All that this family's states allow, and the one that is asked for."""
        norms = has_norms(self.model)
        found = [
            name for name, criterion in registry.criteria().items() if norms or criterion.state != "norm"
        ]
        return tuple(dict.fromkeys([*found, options.criterion]))

    def _collect(self, members: Sequence[PruningOptions]) -> None:
        """At most one pass that keeps whatever any member reads, then every member's scores."""
        groups: dict[tuple[Key, Path | None], list[PruningOptions]] = {}
        for options in members:
            groups.setdefault((_vectors(options), self.states_file(options)), []).append(options)
        lacking: list[tuple[Path | None, list[PruningOptions]]] = []
        for (_, file), group in groups.items():
            if file is not None and file.exists():
                kept = Kept.load(file)
                self._score(group, self._alive(kept.evidence, group[0]), {"calibrate": dict(kept.cost)})
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
            found = calibrate_together(
                self.model,
                self.processor,
                readings,
                samples=self._samples_for(readings[0].options),
                progress=self.progress,
                forbidden=self.forbidden,
            )
        for (file, _), evidence in zip(lacking, found, strict=True):
            if file is not None:
                Kept(evidence, self.name, self.fingerprint, stages["calibrate"]).save(file.parent)
        for _, group in lacking:
            self._score(group, found.pop(0), stages)  # popped, so that its states can go

    def _score(self, members: Sequence[PruningOptions], evidence: Evidence, stages: Stages) -> None:
        for options in members:
            key, own = self._key(options), dict(stages)
            if key in self._scored:
                continue
            spared = evidence.spared_seconds
            with measured(own, "score"):
                scores = score(evidence, planning.resolved(options))
            # Every plan tells what it would have cost alone.
            own["score"]["seconds"] = round(own["score"]["seconds"] + evidence.spared_seconds - spared, 3)
            facts = self._facts(options)
            about = {"kind": "scores", "model": self.name, "criterion": options.criterion}
            value = {"scores": scores_to_json(scores), "stages": own}
            self.cache.put(self._cache_key(options, facts), value, about)
            self._scored[key] = Scored(scores, facts, own)

    def _alive(self, evidence: Evidence, options: PruningOptions) -> Evidence:
        """Evidence from the disk with what cannot be kept there."""
        samples, batch = self._samples_for(options), options.calibration_batch
        return replace(
            evidence,
            forbidden=self.forbidden,
            progress=self.progress,
            make_likelihood=lambda: Likelihood.of(self.model, self.processor, samples, batch),
        )

    def _samples_for(self, options: PruningOptions) -> Sequence[Sample]:
        key = (options.calibration, options.samples, options.seed)
        if key not in self._samples:
            self._samples[key] = load(options, self.readers)
        return self._samples[key]

    def _facts(self, options: PruningOptions) -> dict[str, Any]:
        """The calibration set as it would be described for this criterion alone."""
        return self._described(options, states_read(planning.resolved(options), [options.criterion]))

    def _described(self, options: PruningOptions, states: tuple[str, ...]) -> dict[str, Any]:
        """`describe`, which hashes all prompts and pixels, once for everything that shares them."""
        key = (*pass_key(options), options.token, states)
        if key not in self._descriptions:
            samples = self._samples_for(options)
            self._descriptions[key] = describe(self.processor, samples, options, states)
        return dict(self._descriptions[key])

    def _cache_key(self, options: PruningOptions, facts: Mapping[str, Any]) -> list[Any]:
        """make_plan's own key: a sweep and single runs share their scores."""
        return [self.fingerprint, facts, options.criterion, score_parameters(planning.resolved(options))]

    def _key(self, options: PruningOptions) -> str:
        return str((_vectors(options), options.criterion, score_parameters(planning.resolved(options))))


def _vectors(options: PruningOptions) -> Key:
    """What decides which vectors of which pass are read."""
    return (*pass_key(options), options.token, options.state)
