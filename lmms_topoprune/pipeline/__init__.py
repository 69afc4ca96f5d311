"""From options to a plan, and from a plan to a pruned model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lmms_topoprune._util.disk_cache import Cache
from lmms_topoprune.calibration.ranks import Ranks
from lmms_topoprune.calibration.samples import Sample
from lmms_topoprune.calibration.sources import Reader
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.pipeline.apply import apply_plan
from lmms_topoprune.pipeline.planner import Planner
from lmms_topoprune.plan import PruningPlan

__all__ = ["Planner", "apply_plan", "make_plan"]


def make_plan(
    model: Any,
    processor: Any,
    options: PruningOptions,
    *,
    name: str,
    samples: Sequence[Sample] | None = None,
    readers: Mapping[str, Reader] | None = None,
    progress: bool = True,
    ranks: Ranks | None = None,
    cache: Cache | None = None,
) -> PruningPlan:
    """`Planner.plan` for one plan of a loaded model; arguments as `Planner`.

    Raises:
        OptionError: the options contradict each other or ask for more layers than may go.
        InputError: the model, the samples or a given plan cannot be used.
    """
    planner = Planner(
        name, model, processor, readers=readers, samples=samples, progress=progress,
        ranks=ranks or Ranks(), cache=Cache.default() if cache is None else cache,
    )  # fmt: skip
    return planner.plan(options)
