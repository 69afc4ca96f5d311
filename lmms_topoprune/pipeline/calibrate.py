"""One calibration pass for all that is read of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from lmms_topoprune import registry
from lmms_topoprune.calibration.calibration_set import CalibrationSet
from lmms_topoprune.calibration.collect import Collected, collect_views
from lmms_topoprune.calibration.ranks import Ranks, merged
from lmms_topoprune.calibration.recorder import POINTS, View
from lmms_topoprune.calibration.tokens import Draw, check_tokens
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.surgery import decoder_layers


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
        return tuple(_view(self.options, state) for state in states_read(self.options, self.criteria))

    @property
    def sums(self) -> tuple[str, ...]:
        return tuple(sorted({name for rule in self.rules for name in rule.sums}))

    @property
    def rules(self) -> list[registry.Criterion]:
        return [registry.get(name) for name in self.criteria]


def calibrate(
    model: Any,
    processor: Any,
    calibration: CalibrationSet,
    readings: Sequence[Reading],
    *,
    progress: bool = True,
    ranks: Ranks | None = None,
) -> Collected:
    """One pass for several readings; nothing is run where they read nothing.

    Args:
        model, processor: the dense model.
        calibration: the samples.
        readings: at least one; their options have the same `pass_key`.
        progress: show a bar.
        ranks: share the pass among these processes; only the first gets all that was found.

    Raises:
        ValueError: no single pass serves these readings.
        InputError: as for `collect_views`.
    """
    options = readings[0].options
    if len({pass_key(reading.options) for reading in readings}) > 1:
        raise ValueError("the readings need different samples or prompts; allowed: those of one pass_key")
    views = [view for reading in readings for view in reading.views]
    sums = [name for reading in readings for name in reading.sums]
    ranks, nothing = ranks or Ranks(), Collected(len(decoder_layers(model)))
    if not views and not sums:
        return nothing
    asked = {reading.options.token for reading in readings if reading.options.points == "samples"}
    check_tokens(model, calibration.samples, asked | {view.token for view in views})
    one_pass = partial(
        collect_views, model, calibration.prompter(processor), ranks.share(calibration.samples), views, sums,
        marked=is_marked(options), batch_size=options.calibration_batch,
        progress=progress and ranks.rank == 0, between=ranks.check,
        numbers=ranks.numbers(len(calibration)),
    )  # fmt: skip
    parts = ranks.gathered(one_pass)
    return merged(parts) if parts else nothing


def _view(options: PruningOptions, state: str) -> View:
    if options.points == "samples":
        return View(state, options.token)
    return View(state, POINTS, Draw(options.point_count, options.image_share, options.seed))


def points_read(options: PruningOptions) -> dict[str, Any]:
    """Which points of a state stand for what, as a plan says it."""
    if options.points == "samples":
        return {"token": options.token}
    return {"token": POINTS, "points": options.point_count, "image_share": options.image_share}


def is_marked(options: PruningOptions) -> bool:
    """Whether prompts end in the mark that token "ret" reads."""
    return options.points == "samples" and options.token == "ret"


def pass_key(options: PruningOptions) -> tuple[Any, ...]:
    """What decides a calibration pass: the samples, and whether token "ret" marks their prompts."""
    return (options.calibration, options.samples, options.seed, is_marked(options))


def states_read(options: PruningOptions, criteria: Iterable[str]) -> tuple[str, ...]:
    """The states that one pass has to record for these criteria."""
    own = {registry.get(name).state for name in criteria} - {"none"}
    return tuple(sorted(own)) if options.state == "auto" or not own else (options.state,)
