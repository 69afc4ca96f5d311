"""What a person sees of a long run: bars on a terminal, one line a finished step anywhere."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

from lmms_topoprune.comparison.sweep import Watcher
from lmms_topoprune.plan import PruningPlan, format_layers


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
        self.one = self.bars.add_task("answers", total=None, visible=False)
        self.left = 0
        self.start = time.perf_counter()

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False)

    def planning(self, cells: int) -> None:
        if cells:
            self.say(f"Choosing the layers of {cells} pruned models ...")

    def planned(self, evaluations: int, finished: int) -> None:
        self.left = evaluations
        self.bars.start()
        self.bars.update(self.all, total=evaluations, completed=finished, visible=evaluations > 1)
        if finished:
            self.say(f"{finished} of {evaluations} models are already evaluated.")

    def evaluating(self, plan: PruningPlan) -> None:
        self.start = time.perf_counter()
        what = plan.criterion if plan.dropped else "dense"
        self.bars.reset(self.one, total=None, description=f"evaluating {what}", visible=True)

    def answered(self, done: int, total: int) -> None:
        self.bars.update(self.one, completed=done, total=total)

    def evaluated(self, plan: PruningPlan) -> None:
        self.bars.advance(self.all)
        what = f"without layers {format_layers(plan.dropped)}" if plan.dropped else "dense"
        self.say(f"evaluated {what} in {time.perf_counter() - self.start:.0f} s")

    def close(self) -> None:
        self.bars.stop()

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
