"""The trials of a plan that was settled by the loss: every proposal, who made it, and which one won."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from lmms_topoprune.plan import PruningPlan, format_layers
from lmms_topoprune.report import svg
from lmms_topoprune.report.render import Figure, Table
from lmms_topoprune.report.svg import Axes, padded


@dataclass(frozen=True)
class Trial:
    """One measured set of layers.

    Attributes:
        number: from 1, in the order in which they were measured.
        by: the criterion that proposed it, or "swap".
        dropped: its layers.
        loss: of the calibration tokens.
        told: who proposed it with which settings, and who else did; or which layers were swapped.
    """

    number: int
    by: str
    dropped: tuple[int, ...]
    loss: float
    told: str


def trials_of(plan: PruningPlan) -> list[Trial]:
    """What the plan recorded; nothing for a plan without trials."""
    return [
        Trial(number, entry["by"], tuple(entry["dropped"]), entry["loss"], _told(entry))
        for number, entry in enumerate(plan.trials, start=1)
    ]


def _told(entry: Mapping[str, Any]) -> str:
    also = "; ".join(["", *entry.get("also", ())])
    return f"{entry['by']} {entry.get('how', '')}".strip() + also


def trial_figures(plans: Mapping[str, PruningPlan], names: Mapping[str, int]) -> list[Figure]:
    """One figure for each run whose plan has trials; criteria look as they do elsewhere."""
    found = {label: trials_of(plan) for label, plan in plans.items()}
    numbers = dict(names)
    for trial in (trial for trials in found.values() for trial in trials):
        numbers.setdefault(trial.by, len(numbers))
    return [_figure(label, trials, numbers) for label, trials in found.items() if trials]


def _figure(label: str, trials: Sequence[Trial], numbers: Mapping[str, int]) -> Figure:
    name, best = f"Trials of {label}", min(trials, key=lambda trial: trial.loss)
    proposers = {by: numbers[by] for by in dict.fromkeys(trial.by for trial in trials)}
    rows = [
        [str(t.number), t.told, format_layers(t.dropped), f"{t.loss:.4f}", "won" if t is best else ""]
        for t in trials
    ]
    return Figure(
        name,
        svg.both(lambda width: _chart(name, trials, proposers, best, width)),
        Table(name, ["trial", "proposed by", "dropped layers", "loss", ""], rows),
        f"{label}: {len(trials)} trials; {best.by} proposed the winner, {format_layers(best.dropped)}, with "
        f"loss {best.loss:.4f}. The line is the best so far.",
        proposers,
    )


def _chart(
    name: str, trials: Sequence[Trial], proposers: Mapping[str, int], best: Trial, width: int
) -> Markup:
    axes = Axes(
        name,
        "Calibration loss of every trial in order; less is better. The ring is the winner.",
        "trial",
        "calibration loss",
        padded([float(trial.number) for trial in trials], 0.03),
        padded([trial.loss for trial in trials]),
        width,
        height=260,
    )
    lowest, steps = float("inf"), list[svg.Point]()
    for trial in trials:
        steps += [(trial.number, lowest)] if steps else []
        lowest = min(lowest, trial.loss)
        steps.append((trial.number, lowest))
    axes.line(steps, "front")
    for trial in trials:
        said = f"{trial.number}: {trial.by}, {format_layers(trial.dropped)}, loss {trial.loss:.4f}"
        with axes.series(proposers[trial.by]):
            axes.mark(trial.number, trial.loss, proposers[trial.by], said)
    ring = {"cx": axes.x(best.number), "cy": axes.y(best.loss), "r": 9, "class_": "ring"}
    axes.body.append(svg.element("circle", **ring))
    return axes.render()
