"""An evaluator for workers, which loads nothing: the answers depend on the dropped layers alone."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import folders

from lmms_topoprune.errors import GenerationError, InputError
from lmms_topoprune.plan import format_layers
from lmms_topoprune.repair.cut_sums import KnownSums


@dataclass
class Habits:
    """What goes wrong, by the layers that are dropped.

    Attributes:
        notes: folder with one file a started evaluation, named LAYERS.PID.NUMBER.
        dies_once, dies, fails, hangs: layers.
        pause: seconds an evaluation takes.
        opens: whether the model can be loaded.
    """

    notes: Path
    dies_once: str = ""
    dies: str = ""
    fails: str = ""
    hangs: str = ""
    pause: float = 0.0
    opens: bool = True

    def __call__(self, device: str | None = None, log: Path | None = None) -> StandIn:
        """As an opener."""
        if not self.opens:
            raise InputError("pretrained is 'tiny', which cannot be loaded")
        return StandIn(self)

    def started(self) -> list[tuple[str, int]]:
        """(layers, process id) of every evaluation that was begun, in any order."""
        return [(p.name.split(".")[0], int(p.name.split(".")[1])) for p in self.notes.iterdir()]


@dataclass
class StandIn:
    """Answers 20 questions."""

    habits: Habits
    model: Any = None
    processor: Any = None
    name: str = "dense_llava"
    model_args: str = "pretrained=tiny"
    batch_size: int = 4
    calibrations: Any = None
    sums: KnownSums = field(default_factory=KnownSums)
    opener: Any = field(init=False)

    def __post_init__(self) -> None:
        self.opener = self.habits

    def check_tasks(self, tasks: Any) -> None: ...

    def asked_about(self, source: str, tasks: Any) -> tuple[str, ...]:
        return ()

    def expect(self, plans: Any) -> None: ...

    def evaluate(self, plan, tasks, output, *, model, model_args, limit=None, progress=None) -> Path:
        layers = format_layers(plan.dropped)
        tries = sum(found == layers for found, _ in self.habits.started())
        (self.habits.notes / f"{layers}.{os.getpid()}.{tries}").touch()
        progress(1, 20)
        time.sleep(60 if layers == self.habits.hangs else self.habits.pause)
        if layers == self.habits.fails:
            raise GenerationError("the model failed at question 3")
        scores = [float((i * 7 + len(plan.dropped)) % 5 > len(plan.dropped)) for i in range(20)]
        path = folders.write(output / "tiny", {"vqa": folders.exact(scores)}, plan, model=model)
        if layers == self.habits.dies or (layers == self.habits.dies_once and not tries):
            path.write_text(path.read_text()[:50])
            os.kill(os.getpid(), signal.SIGKILL)
        return path
