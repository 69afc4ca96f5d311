"""The one way from options to a plan."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from lmms_topoprune import registry
from lmms_topoprune._util.disk_cache import Cache
from lmms_topoprune._util.progress import progress_bar
from lmms_topoprune._util.timing import Stages, measured
from lmms_topoprune.calibration.calibration_set import (
    Asked,
    CalibrationSet,
    CalibrationSets,
    marked,
    nobody_asks,
    refuse,
)
from lmms_topoprune.calibration.ranks import Ranks
from lmms_topoprune.calibration.samples import Sample
from lmms_topoprune.calibration.sources import Reader
from lmms_topoprune.calibration.states import DecoderLayers
from lmms_topoprune.criteria.scoring import check_samples
from lmms_topoprune.errors import InputError, reason_of
from lmms_topoprune.heal.healing import check_machine, check_weights
from lmms_topoprune.heal.healing import check_samples as check_healed_samples
from lmms_topoprune.heal_options import HealingOptions
from lmms_topoprune.options import AUTO, PruningOptions
from lmms_topoprune.pipeline import checks
from lmms_topoprune.pipeline.apply import with_healing, with_repair
from lmms_topoprune.pipeline.before_loading import Keys, known_plan, remember
from lmms_topoprune.pipeline.checks import resolved
from lmms_topoprune.pipeline.plans import Refused, plan_from, unscored_plan, versions
from lmms_topoprune.pipeline.proposals import proposed, proposers
from lmms_topoprune.pipeline.scorer import Scorer
from lmms_topoprune.pipeline.trials import Losses, keep_trials, known_trials, largest, settle
from lmms_topoprune.plan import PruningPlan, parse_layers
from lmms_topoprune.repair.cut_sums import KnownSums
from lmms_topoprune.selection import PairScores
from lmms_topoprune.surgery import decoder_layers, fingerprint, layer_sizes, refusals, undeletable
from lmms_topoprune.surgery.checkpoint import Checkpoint

log = logging.getLogger(__name__)

MANY = 20
"""Plans that get a bar."""


@dataclass
class Planner:
    """Makes the plans of one model, from the first check to the last plan.

    The order is `check`, `plan_before_loading`, `use`, `plan` or `plans`; each may be left out. Samples are
    drawn, worded and hashed once, scores are computed once, and options that read the same samples share
    one calibration pass.

    Attributes:
        name: name or path of the model; recorded in plans.
        model: the dense model, once it is loaded.
        processor: its processor or tokenizer.
        path: where the model's configuration is, if not under its name.
        readers: further calibration sources, such as "task" for lmms-eval's tasks.
        asked: which evaluated tasks ask about documents of a calibration source; such plans are refused.
        samples: calibration samples instead of those that options name.
        cache: where scores are looked up and kept between runs; the user's cache folder by default.
        ranks: processes that share each pass; all of them call the same methods and get equal plans.
        progress: show calibration bars.
        states: a folder where hidden states are looked up and kept between runs.
        calibrations: draws the samples; to be shared with whoever repairs by the same ones.
        sums: what passes for repairs that were tried found; to be shared likewise.
    """

    name: str
    model: Any = None
    processor: Any = None
    path: str | None = None
    readers: Mapping[str, Reader] | None = None
    asked: Asked = nobody_asks
    samples: Sequence[Sample] | None = None
    cache: Cache = field(default_factory=Cache.default)
    ranks: Ranks = field(default_factory=Ranks)
    progress: bool = False
    states: Path | None = None
    calibrations: CalibrationSets | None = None
    sums: KnownSums = field(default_factory=KnownSums)
    _keys: Keys | None = None

    def use(self, model: Any, processor: Any, ranks: Ranks | None = None) -> Planner:
        """Go on with the dense model, now that it is loaded (and the processes have met); returns itself."""
        self.model, self.processor, self.ranks = model, processor, ranks or self.ranks
        return self

    @cached_property
    def sets(self) -> CalibrationSets:
        """What draws the calibration samples."""
        return self.calibrations or CalibrationSets(self.readers, self.samples)

    @cached_property
    def layers(self) -> DecoderLayers:
        """The loaded model's decoder layers."""
        return DecoderLayers(len(decoder_layers(self.model)), frozenset(undeletable(self.model)))

    @cached_property
    def fingerprint(self) -> str:
        """The loaded model's fingerprint."""
        return fingerprint(self.model)

    @cached_property
    def _refused(self) -> Refused:
        return refusals(self.model)

    @cached_property
    def scorer(self) -> Scorer:
        return Scorer(
            self.model, self.processor, self.name, self.fingerprint, self.layers, self.sets,
            self.cache, self.ranks, self.progress, self.states,
        )  # fmt: skip

    @property
    def passes(self) -> int:
        """How many calibration passes were run for scores."""
        return self.scorer.passes

    def calibration(self, options: PruningOptions) -> CalibrationSet:
        """The calibration set that the options ask for."""
        asked = (options.calibration, options.samples, options.seed)
        return self.sets.of(*asked, strict=options.calibration_strict)

    def check(self, *wanted: PruningOptions, draw: bool = True) -> None:
        """Refuse what cannot work; before the model is loaded its configuration and the samples are enough.

        Args:
            wanted: what plans will be asked for.
            draw: draw the calibration samples, which finds mistakes in them.

        Raises:
            OptionError: options contradict each other, more layers than may go, no such calibration source,
                or one that is evaluated.
            SurgeryError: a healing is asked for, which this model does not allow.
            InputError: a layer that does not exist, a plan file or samples that cannot be used.
            UnreachableError: the calibration data cannot be reached.
        """
        layers: int | None
        if self.model is None:
            layers, forbidden = checks.count_layers(self.path or self.name), frozenset[int]()
        else:  # its name may be none that the hub knows
            layers, forbidden = self.layers.count, self.layers.undeletable
        for options in wanted:
            self._check_layers(options, layers, forbidden)
        for options in wanted:
            self._check_calibration(options, layers, draw)
            self._check_healing(options, draw)

    def check_drops(self, *wanted: PruningOptions) -> None:
        """Refuse a sparsity that rounds to no layer; for sweeps, which evaluate the dense model anyway.

        Raises:
            OptionError: names the sparsity.
        """
        for options in wanted:
            checks.check_drops(options, self.layers.count)

    def _check_layers(self, options: PruningOptions, layers: int | None, forbidden: frozenset[int]) -> None:
        if options.plan is not None:
            PruningPlan.load(options.plan) if layers is None else checks.load_plan(
                options.plan, layers, self.name
            )
        elif options.layers is not None:
            if layers is not None:
                PruningPlan(self.name, "", layers, parse_layers(options.layers), "given")
        elif layers is not None and not checks.drops_nothing(resolved(options), layers):
            checks.check_budget(resolved(options), layers, forbidden)
            self._counted(options)

    def _check_calibration(self, options: PruningOptions, layers: int | None, draw: bool) -> None:
        """Refuse samples that are evaluated, or too few."""
        for source in self._sources(options, layers):
            if not options.calibration_forced:
                refuse(source, self.asked)
        if draw and self._reads_samples(options, layers):
            check_samples(options, len(self.calibration(options)))

    def _check_healing(self, options: PruningOptions, draw: bool) -> None:
        """Refuse a healing that this installation, the model or the calibration set does not allow."""
        facts = {} if options.plan is None else PruningPlan.load(options.plan).heal
        healing = HealingOptions.of_plan(facts) if facts else options.healing
        if healing is None:
            return
        check_machine(healing)
        if self.model is None:
            checks.check_healable(self.path or self.name, healing)
        else:
            check_weights(self.model)
        if not draw:  # a source may have fewer than were asked for, but not more
            count = facts["samples"] if facts else options.samples
        elif facts:
            count = len(self.sets.of(facts["source"], facts["samples"], facts["seed"]))
        else:
            count = len(self.calibration(options))
        check_healed_samples(count, healing, self.ranks.world)

    def _sources(self, options: PruningOptions, layers: int | None) -> list[str]:
        """Where the samples come from that have a say in the plan or, by an earlier one, in the model."""
        found = self._of_the_folder()
        found += [options.calibration] if options.repair != "none" or options.healing else []
        if options.plan is not None:
            return [*found, *PruningPlan.load(options.plan).sources]
        return [*found, *([options.calibration] if self._reads_samples(options, layers) else [])]

    def _of_the_folder(self) -> list[str]:
        """The same of a model that is an exported one already, as the plan in its folder tells."""
        with suppress(InputError, OSError):  # none, or another program's file of that name
            return list(PruningPlan.load(Path(self.path or self.name) / "plan.json").sources)
        return []

    def _reads_samples(self, options: PruningOptions, layers: int | None) -> bool:
        if checks.is_explicit(options) or checks.drops_nothing(resolved(options), layers):
            return False
        return bool(options.trials) or registry.get(options.criterion).needs_samples

    def plan_before_loading(
        self, options: PruningOptions, checkpoint: Checkpoint, setting: Any, ranks: Ranks | None = None
    ) -> PruningPlan | None:
        """The plan, where the cache and the files of the model tell it; None where it takes the loaded model.

        Args:
            options: what to do.
            checkpoint: the model on the disk.
            setting: a JSON value of whatever else decides prompts.
            ranks: the processes, as far as they have met by now.
        """
        self.ranks = ranks or self.ranks

        def found() -> PruningPlan | None:
            try:
                if options.criterion == "dense" or checkpoint.is_quantized():
                    return None
                self._keys = self._keys_of(options, checkpoint, setting)
                plan = known_plan(options, checkpoint, self._keys, self.cache, self.name)
            except Exception as error:  # whatever it is, loading the dense model works or says it better
                log.info("the dense model is loaded first: %s", reason_of(error))
                return None
            return None if plan is None or not plan.dropped else marked(plan, self.asked)

        return self.ranks.first(found)

    def remember(
        self, plan: PruningPlan, options: PruningOptions, checkpoint: Checkpoint, setting: Any
    ) -> None:
        """Keep what the next run has to know before it loads the model; as `plan_before_loading`."""
        if not plan.dropped or self._keys is None:
            return
        try:
            if self._keys != self._keys_of(options, checkpoint, setting):
                return  # calibration takes long, training may go on: these are other files now
        except OSError:  # they are gone
            return
        remember(plan, self._keys, self.cache)

    def _keys_of(self, options: PruningOptions, checkpoint: Checkpoint, setting: Any) -> Keys:
        reads = self._reads_samples(options, None)
        drawn = self.calibration(options).fingerprint if reads else ""
        return Keys.of(options, checkpoint, [setting, drawn])

    def plan(self, options: PruningOptions) -> PruningPlan:
        """Decide which decoder layers go. The model is not changed.

        Raises:
            OptionError: the options contradict each other or ask for more layers than may go.
            InputError: the model, the samples or a given plan cannot be used.
        """
        return self.plans([options])[0]

    def plans(self, wanted: Sequence[PruningOptions], *, always_scored: bool = False) -> list[PruningPlan]:
        """One plan for each, in order; options with the same samples and prompts share one pass.

        Args:
            wanted: what to do.
            always_scored: score also where no layer goes.

        Raises:
            OptionError, InputError: as `plan`.
        """
        asked = [self._counted(options) for options in wanted]
        made = iter(self._settled_plans([o for o in asked if o.sparsity != AUTO], always_scored))
        return [self._largest(o) if o.sparsity == AUTO else next(made) for o in asked]

    def _counted(self, options: PruningOptions) -> PruningOptions:
        """The options with a sparsity for a number of layers or of parameters, once the model is there."""
        if self.model is None or (options.drop is None and options.parameters is None):
            return options
        checks.check_budget(resolved(options), self.layers.count, self.layers.undeletable)
        sizes, total = layer_sizes(self.model)
        free = self.layers.droppable(options.protect_first, options.protect_last)
        return checks.counted(options, self.layers.count, [sizes[layer] for layer in free], total)

    def _settled_plans(self, wanted: Sequence[PruningOptions], always_scored: bool) -> list[PruningPlan]:
        """One plan for each; all of them say how many layers go."""
        scored, tried = [], []
        for options in wanted:
            if checks.is_explicit(options):
                continue
            drops = not checks.drops_nothing(resolved(options), self.layers.count)
            if always_scored or drops:
                checks.check_budget(resolved(options), self.layers.count, self.layers.undeletable)
                scored.append(options)
            tried += [options] if options.trials and drops else []
        self.scorer.score(scored, [o for options in tried for o in proposers(options)])
        found, known, settled = [], set(scored), set(tried)
        shown = self.progress and len(wanted) >= MANY and not tried  # trials have a bar of their own
        with progress_bar("choosing layers", len(wanted), shown, stays=False) as advance:
            for options in wanted:
                plan = self._plan(options, options in known)
                found.append(self._finished(plan, options, options in settled))
                advance(1)
        return found

    def _largest(self, options: PruningOptions) -> PruningPlan:
        """The plan that drops as many layers as the tolerance allows."""

        def settled(each: PruningOptions) -> tuple[PruningPlan, int]:
            plan = self.plan(each)
            return plan, len(self.scorer.known(each).massive) if options.protect_massive else 0

        count = self.layers.count
        most = len(self.layers.droppable(options.protect_first, options.protect_last))
        found, told = largest(
            options, count, most, settled, lambda plan: self._losses(plan, options).dense.mean
        )
        best = found or unscored_plan(resolved(options), self.name, count, self.fingerprint)
        return replace(best, parameters={**best.parameters, **told})

    def _losses(self, plan: PruningPlan, options: PruningOptions) -> Losses:
        return Losses(
            self.model, self.processor, plan, self.calibration(options), options.calibration_batch,
            self.sets, self.sums, self.cache, self.ranks,
        )  # fmt: skip

    def dense(self) -> PruningPlan:
        """The plan that drops nothing."""
        return self.plan(PruningOptions(criterion="dense"))

    def similarity(self, options: PruningOptions) -> list[list[float]] | None:
        """(S, S) similarity of states behind a plan that was made here; None for scores of single layers."""
        found = self.scorer.known(self._counted(options)).scores
        return found.values.tolist() if isinstance(found, PairScores) else None

    def barcodes(self, options: PruningOptions) -> list[Mapping[str, Any]]:
        """The barcodes behind a plan that was made here, as criteria.topology.for_report describes them."""
        return list(self.scorer.known(self._counted(options)).scores.barcodes)

    def states_file(self, options: PruningOptions) -> Path | None:
        """Where the hidden states behind such a plan are kept; None for nowhere, or if it reads none."""
        return self.scorer.states_file(options)

    def _plan(self, options: PruningOptions, scored: bool) -> PruningPlan:
        if checks.is_explicit(options):
            given: dict[str, Any] = {"name": self.name, "layers": self.layers.count, "versions": versions()}
            return checks.explicit_plan(options, fingerprint=self.fingerprint, **given)
        if not scored:
            return unscored_plan(resolved(options), self.name, self.layers.count, self.fingerprint)
        about = (self.name, self.scorer.known(options), self.layers, self.fingerprint, self._refused)
        return self.ranks.first(lambda: plan_from(self.model, resolved(options), *about))

    def _finished(self, plan: PruningPlan, options: PruningOptions, tried: bool) -> PruningPlan:
        """Repaired as is asked for, settled, healed, and with a mark if it was made by what is evaluated."""
        if options.repair != "none" and plan.dropped:
            plan = with_repair(plan, self.processor, options, lambda: self.calibration(options))
        if tried and plan.dropped:
            plan = self._settled(plan, options)
        if options.healing and plan.dropped:
            plan = with_healing(plan, self.processor, options, lambda: self.calibration(options))
        return marked(plan, self.asked)

    def _settled(self, plan: PruningPlan, options: PruningOptions) -> PruningPlan:
        """The plan with the layers that trials find best; looked up and kept like scores."""
        plan = replace(plan, calibration=plan.calibration or self.scorer.described(options))
        if (known := self.ranks.first(lambda: known_trials(plan, self.cache))) is not None:
            return known
        stages: Stages = {}
        with measured(stages, "trials"):
            losses = self._losses(plan, options)
            others = proposers(replace(options, sparsity=plan.sparsity))[1:]  # a threshold finds a sparsity
            found = [(other, self.scorer.known(other)) for other in others if self.scorer.is_known(other)]
            own = (options, self.scorer.known(options))
            asked = self.ranks.first(lambda: proposed(self.model, plan, own, found, self.layers))
            shown = self.progress and self.ranks.rank == 0
            with progress_bar("trying sets of layers", options.trials, shown) as advance:
                settled = settle(plan, *asked, losses, options.trials, advance)
        settled = settled.with_stages(**stages)
        if self.ranks.rank == 0:
            keep_trials(plan, settled, self.cache)
        return settled
