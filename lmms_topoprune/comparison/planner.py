"""Plans for many options of one model, from as few calibration passes as possible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lmms_topoprune import planning
from lmms_topoprune.calibration.samples import Sample
from lmms_topoprune.calibration.sources import Reader, load_samples
from lmms_topoprune.criteria import registry
from lmms_topoprune.criteria.evidence import Evidence
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.plan import PruningPlan
from lmms_topoprune.selection import LayerScores, PairScores
from lmms_topoprune.stages import Stages, measured
from lmms_topoprune.surgery import decoder_layers, undeletable

Key = tuple[Any, ...]


@dataclass
class Planner:
    """Remembers samples, hidden states and scores between plans.

    Attributes:
        model, processor: the dense model.
        name: name or path it was loaded from.
        readers: further calibration sources.
        progress: show calibration bars.
    """

    model: Any
    processor: Any
    name: str
    readers: Mapping[str, Reader] | None = None
    progress: bool = False
    _samples: dict[Key, Sequence[Sample]] = field(default_factory=dict)
    _evidence: dict[Key, Evidence] = field(default_factory=dict)
    _scores: dict[Key, LayerScores | PairScores] = field(default_factory=dict)
    _stages: dict[Key, Stages] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.layers = len(decoder_layers(self.model))
        self.forbidden = frozenset(undeletable(self.model))

    def check(self, wanted: Sequence[PruningOptions]) -> None:
        """Refuse what cannot be planned before anything is computed.

        Raises:
            OptionError: more layers are asked for than may go, or options contradict each other.
        """
        for options in wanted:
            planning.check_budget(planning.resolved(options), self.layers, self.forbidden)

    def dense(self) -> PruningPlan:
        """The plan that drops nothing."""
        options = PruningOptions(criterion="dense")
        return planning.make_plan(self.model, self.processor, options, name=self.name, progress=False)

    def plans(self, wanted: Sequence[PruningOptions]) -> list[PruningPlan]:
        """One plan for each, in order; options with the same samples and token share one pass."""
        groups: dict[Key, list[PruningOptions]] = {}
        for options in wanted:
            if registry.get(options.criterion).needs_samples:
                groups.setdefault(_pass(options), []).append(options)
        for key, members in groups.items():
            self._collect(key, members)
        return [self._plan(options) for options in wanted]

    def _collect(self, key: Key, members: Sequence[PruningOptions]) -> None:
        """One pass that keeps whatever any member reads."""
        first = members[0]
        samples = load_samples(first.calibration, first.samples, first.seed, readers=self.readers)
        stages: Stages = {}
        with measured(stages, "calibrate"):
            evidence = planning.calibrate(
                self.model,
                self.processor,
                first,
                list(dict.fromkeys(options.criterion for options in members)),
                samples=samples,
                progress=self.progress,
                forbidden=self.forbidden,
            )
        self._samples[key], self._evidence[key], self._stages[key] = samples, evidence, stages

    def _plan(self, options: PruningOptions) -> PruningPlan:
        stages = dict(self._stages.get(_pass(options), {}))
        evidence = self._evidence_for(options)
        options = planning.resolved(options)
        with measured(stages, "score"):
            scores = self._score(evidence, options)
        with measured(stages, "select"):
            dropped = planning.choose(scores, options, self.layers, self.forbidden)
        return planning._plan(
            self.model, options, self.name, self.layers, dropped, scores, evidence.calibration, stages
        )

    def _score(self, evidence: Evidence, options: PruningOptions) -> LayerScores | PairScores:
        read = registry.get(options.criterion).parameters
        key = (*_pass(options), options.criterion, *(getattr(options, name) for name in read))
        if key not in self._scores:
            self._scores[key] = planning.score(evidence, options)
        return self._scores[key]

    def _evidence_for(self, options: PruningOptions) -> Evidence:
        """The pass's evidence, described as if it had been made for this criterion alone."""
        criterion = registry.get(options.criterion)
        if not criterion.needs_samples:
            return Evidence(self.layers, forbidden=self.forbidden)
        key, state = _pass(options), planning.resolved(options).state
        states = () if criterion.state == "none" else (state,)
        described = planning.describe(self.processor, self._samples[key], options, states)
        return replace(self._evidence[key], calibration=described)


def _pass(options: PruningOptions) -> Key:
    """What decides a calibration pass."""
    return (options.calibration, options.samples, options.seed, options.token, options.state)
