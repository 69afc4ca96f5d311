"""Layers must not be chosen by the documents that a model is then evaluated on, unless that is forced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lmms_topoprune.errors import OptionError, shown
from lmms_topoprune.plan import PruningPlan

Asked = Callable[[str], tuple[str, ...]]
"""The evaluated tasks that ask about documents of a calibration source."""


def nobody_asks(source: str) -> tuple[str, ...]:
    """Nothing is evaluated."""
    return ()


def refuse(source: str, asked: Asked) -> None:
    """Raise OptionError if a task asks about documents of the source."""
    if found := asked(source):
        raise OptionError(
            f"calibration is {shown(source)}, which task {found[0]!r} is evaluated on; pass another split or "
            "source, or calibration_forced=True"
        )


def marked(plan: PruningPlan, asked: Asked) -> PruningPlan:
    """The plan, which says so if it was made from documents that are evaluated."""
    found = sorted({task for source in plan.sources for task in asked(source)})
    return replace(plan, calibration={**plan.calibration, "evaluated": found}) if found else plan
