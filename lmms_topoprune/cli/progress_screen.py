"""What a person sees of a long run: bars on a terminal, one line a finished step anywhere."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from lmms_topoprune.errors import TopopruneError
from lmms_topoprune.plan import PruningPlan, format_layers
from lmms_topoprune.sweep.runner import Watcher


@dataclass
class _Running:
    """A model under evaluation: its bar, when it began, and the share of its answers that are there."""

    bar: TaskID
    start: float
    share: float = 0.0


def _what(plan: PruningPlan) -> str:
    many = "s" if len(plan.dropped) > 1 else ""
    if not plan.dropped:
        return "dense"
    made = "".join(f", {word}" for word, facts in (("repaired", plan.repair), ("healed", plan.heal)) if facts)
    return f"without layer{many} {format_layers(plan.dropped)}{made}"


class Screen(Watcher):
    """Shows a sweep's progress on standard error.

    Attributes:
        console: bound to the real standard error, which lmms-eval's chatter is kept away from.
    """

    def __init__(self) -> None:
        self.console = Console(file=sys.stderr)
        self.bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        self.all = self.bars.add_task("models", total=None, visible=False)
        self.running: dict[str, _Running] = {}
        self.finished = 0

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False)

    def damaged(self, reason: str) -> None:
        self.say(f"{reason}; it is made again")

    def planning(self, cells: int) -> None:
        if cells:
            self.say(f"Choosing the layers of {cells} pruned models ...")

    def planned(self, evaluations: int, finished: int) -> None:
        self.finished = finished
        self.bars.start()
        self.bars.update(self.all, total=evaluations, completed=finished, visible=evaluations > 1)
        if finished:
            self.say(f"{finished} of {evaluations} models are already evaluated.")

    def evaluating(self, plan: PruningPlan) -> None:
        name = plan.criterion if plan.dropped else "dense"
        bar = self.bars.add_task(f"evaluating {name}", total=None)
        self.running[plan.hash] = _Running(bar, time.perf_counter())

    def answered(self, plan: PruningPlan, done: int, total: int) -> None:
        running = self.running[plan.hash]
        running.share = done / max(total, 1)
        self.bars.update(running.bar, completed=done, total=total)
        self._advance()

    def evaluated(self, plan: PruningPlan) -> None:
        seconds = self._end(plan)
        self.finished += 1
        self._advance()
        self.say(f"evaluated {_what(plan)} in {seconds:.0f} s")

    def retrying(self, plan: PruningPlan, reason: str) -> None:
        self._end(plan)
        self.say(f"evaluating {_what(plan)} once more, because {reason}")

    def failed(self, plan: PruningPlan, error: TopopruneError) -> None:
        self._end(plan)
        self.say(f"failed {_what(plan)}: {error}")

    def _advance(self) -> None:
        """Unfinished models count by their answers, so that the estimate does not wait for the first one."""
        begun = sum(running.share for running in self.running.values())
        self.bars.update(self.all, completed=self.finished + begun)

    def _end(self, plan: PruningPlan) -> float:
        running = self.running.pop(plan.hash)
        self.bars.remove_task(running.bar)
        return time.perf_counter() - running.start

    def close(self) -> None:
        self.bars.stop()

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
