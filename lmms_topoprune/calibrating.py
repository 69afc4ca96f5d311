"""From options to evidence: which states the criteria read, and the pass that keeps them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from lmms_topoprune import registry
from lmms_topoprune._util import files
from lmms_topoprune.calibration.collect import Collected, collect_views
from lmms_topoprune.calibration.evidence import Evidence
from lmms_topoprune.calibration.likelihood import Likelihood
from lmms_topoprune.calibration.prompts import Prompter
from lmms_topoprune.calibration.ranks import Ranks, merged
from lmms_topoprune.calibration.recorder import View
from lmms_topoprune.calibration.samples import Sample
from lmms_topoprune.calibration.samples import fingerprint as samples_fingerprint
from lmms_topoprune.calibration.sources import Reader, load_samples
from lmms_topoprune.calibration.vision import check
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.surgery import decoder_layers, undeletable


@dataclass(frozen=True)
class Reading:
    """What some criteria read under the same options.

    Attributes:
        options: with state = "auto" each criterion reads its own states, else the given one.
        criteria: their names.
    """

    options: PruningOptions
    criteria: tuple[str, ...]

    @property
    def views(self) -> tuple[View, ...]:
        return tuple(View(state, self.options.token) for state in states_read(self.options, self.criteria))

    @property
    def sums(self) -> tuple[str, ...]:
        return tuple(sorted({name for rule in self.rules for name in rule.sums}))

    @property
    def rules(self) -> list[registry.Criterion]:
        return [registry.get(name) for name in self.criteria]


def calibrate(
    model: Any, processor: Any, options: PruningOptions, criteria: Iterable[str], **given: Any
) -> Evidence:
    """One pass that collects what all of these criteria read; `given` as for `calibrate_together`."""
    return calibrate_together(model, processor, [Reading(options, tuple(criteria))], **given)[0]


def calibrate_together(
    model: Any,
    processor: Any,
    readings: Sequence[Reading],
    *,
    samples: Sequence[Sample] | None = None,
    readers: Mapping[str, Reader] | None = None,
    progress: bool = True,
    forbidden: frozenset[int] | None = None,
    ranks: Ranks | None = None,
) -> list[Evidence]:
    """One pass for several readings; the evidence of each.

    Args:
        model, processor: the dense model.
        readings: at least one; their options have the same `pass_key`.
        samples: calibration samples instead of what the options say.
        readers: further calibration sources.
        progress: show bars.
        forbidden: layers that stay; found out if left out.
        ranks: share the calibration among these processes.

    Raises:
        ValueError: no single pass serves these readings.
        InputError: as for `collect_views`.
    """
    options = readings[0].options
    if len({pass_key(reading.options) for reading in readings}) > 1:
        raise ValueError("the readings need different samples or prompts; allowed: those of one pass_key")
    forbidden = frozenset(undeletable(model)) if forbidden is None else forbidden
    layers = len(decoder_layers(model))
    if not any(rule.needs_samples for reading in readings for rule in reading.rules):
        return [Evidence(layers, forbidden=forbidden) for _ in readings]
    if samples is None:
        samples = load(options, readers)
    views = [view for reading in readings for view in reading.views]
    sums = [name for reading in readings for name in reading.sums]
    ranks, found = ranks or Ranks(), Collected(layers, {}, {}, 0)
    if views or sums:
        check(model, samples, {reading.options.token for reading in readings})
        one_pass = partial(
            collect_views, model, processor, ranks.share(samples), views, sums, marked=options.token == "ret",
            batch_size=options.calibration_batch, progress=progress and ranks.rank == 0, between=ranks.check,
        )  # fmt: skip
        if parts := ranks.gathered(one_pass):
            found = merged(parts)
    return [
        replace(
            found.of(reading.views),
            calibration=describe(
                processor, samples, reading.options, states_read(reading.options, reading.criteria)
            ),
            forbidden=forbidden,
            progress=progress,
            make_likelihood=partial(Likelihood.of, model, processor, samples, options.calibration_batch),
        )
        for reading in readings
    ]


def pass_key(options: PruningOptions) -> tuple[Any, ...]:
    """What decides a calibration pass: the samples, and whether token "ret" marks their prompts."""
    return (options.calibration, options.samples, options.seed, options.token == "ret")


def load(options: PruningOptions, readers: Mapping[str, Reader] | None) -> list[Sample]:
    """The calibration samples that the options ask for."""
    strict = options.calibration_strict
    return load_samples(options.calibration, options.samples, options.seed, readers=readers, strict=strict)


def states_read(options: PruningOptions, criteria: Iterable[str]) -> tuple[str, ...]:
    """The states that one pass has to keep for these criteria."""
    own = {registry.get(name).state for name in criteria} - {"none"}
    return tuple(sorted(own)) if options.state == "auto" or not own else (options.state,)


def describe(
    processor: Any, samples: Sequence[Sample], options: PruningOptions, states: tuple[str, ...]
) -> dict[str, Any]:
    """What a plan says about its calibration set.

    The fingerprint covers prompts, pixels, what the processor does to them, and all the rest.
    """
    facts = {
        "source": options.calibration,
        "samples": len(samples),
        "seed": options.seed,
        "token": options.token,
        "state": "+".join(states) or "none",
    }
    prompter = Prompter(processor)
    prompts = [prompter.prompt(sample) for sample in samples]
    looks = prompter.media_settings
    return {**facts, "fingerprint": files.digest([facts, samples_fingerprint(samples), prompts, looks])}
