"""Who evaluates the cells of a sweep: this process, or a pool of workers that each hold a loaded model."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

from lmms_topoprune._util.signals import errors_kept
from lmms_topoprune.errors import GenerationError, SelfTestError, SurgeryError, TopopruneError, reason_of
from lmms_topoprune.plan import PruningPlan, format_layers

Opener = Callable[..., Any]
"""Loads a model: opener(device=..., log=...) -> Evaluator. Has to be picklable, as `Session.opener` is."""
TRIES = 2
"""A cell whose worker died is given to another one; if that dies too, the cell is at fault."""
OF_ONE_CELL = (GenerationError, SelfTestError, SurgeryError)
"""Errors that say nothing about the other cells; anything else stops the sweep."""


@dataclass(frozen=True)
class Job:
    """One pruned model to evaluate: all that a worker has to be told. Fields as for `Evaluator.evaluate`."""

    plan: PruningPlan
    tasks: tuple[str, ...]
    output: Path
    model: str
    model_args: str
    limit: float | None = None

    def __str__(self) -> str:
        repaired = f", with {self.plan.repair['method']} repair" if self.plan.repair else ""
        healed = f", healed in {self.plan.heal['steps']} steps" if self.plan.heal else ""
        return f"the model without layers {format_layers(self.plan.dropped)}{repaired}{healed}"


class Reports(Protocol):
    """What is done about each step of a job; called in the process that runs the sweep."""

    def evaluating(self, job: Job) -> None: ...
    def answered(self, job: Job, done: int, total: int) -> None: ...
    def evaluated(self, job: Job) -> None: ...
    def retrying(self, job: Job, reason: str) -> None: ...
    def failed(self, job: Job, error: TopopruneError) -> None: ...


class Executor(Protocol):
    """Evaluates jobs, in any order, each into its own output folder.

    Attributes:
        own_models: the workers load models of their own, so that the sweep's may leave the GPU.
    """

    own_models: bool

    def run(self, jobs: Sequence[Job], reports: Reports) -> None: ...


@dataclass(frozen=True)
class Ready:
    """A worker has loaded its model."""


@dataclass(frozen=True)
class Unable:
    """A worker cannot load its model, and no other could."""

    error: TopopruneError


@dataclass(frozen=True)
class Answered:
    """A worker has answered so many requests of its job."""

    done: int
    total: int


@dataclass(frozen=True)
class Evaluated:
    """A worker's job is complete."""


@dataclass(frozen=True)
class Failed:
    """A worker's job failed; the worker goes on."""

    error: TopopruneError


@dataclass(frozen=True)
class Died:
    """A worker is gone."""

    reason: str


Message = Ready | Unable | Answered | Evaluated | Failed | Died


def evaluate(evaluator: Any, job: Job, progress: Callable[[int, int], None] | None = None) -> None:
    """Evaluate a job on a loaded model."""
    evaluator.evaluate(
        job.plan,
        job.tasks,
        job.output,
        model=job.model,
        model_args=job.model_args,
        limit=job.limit,
        progress=progress,
    )


@dataclass(frozen=True)
class Serial:
    """Evaluates one job after the other on the sweep's own model."""

    evaluator: Any
    own_models = False

    def run(self, jobs: Sequence[Job], reports: Reports) -> None:
        for job in jobs:
            reports.evaluating(job)
            with errors_kept(OF_ONE_CELL) as failure:
                evaluate(self.evaluator, job, partial(reports.answered, job))
            if failure.error is not None:
                reports.failed(job, cast(TopopruneError, failure.error))
            else:
                reports.evaluated(job)


class WorkerPool(Protocol):
    """Workers somewhere else, under handles of its own choice.

    Attributes:
        size: how many workers may be at work at once.
    """

    size: int

    def start(self) -> Hashable:
        """Start a worker, which loads its model; returns at once."""

    def submit(self, worker: Any, job: Job) -> None:
        """Let a worker that is ready evaluate a job; returns at once."""

    def wait(self, workers: Sequence[Any]) -> list[tuple[Any, Message]]:
        """What these workers say, after a moment at the latest."""

    def close(self) -> None:
        """End every worker, whatever it is doing."""


def opened(opener: Opener, **arguments: Any) -> tuple[Any, Ready | Unable | Died]:
    """In a worker: the loaded model, and what to say about it."""
    try:
        return opener(**arguments), Ready()
    except TopopruneError as error:
        return None, Unable(error)
    except Exception as error:
        return None, Died(f"it cannot load the model: {reason_of(error)}")


def attempt(evaluator: Any, job: Job, progress: Callable[[int, int], None]) -> Evaluated | Failed:
    """In a worker: evaluate a job; nothing a job does wrong ends the worker."""
    try:
        evaluate(evaluator, job, progress)
    except TopopruneError as error:
        return Failed(error)
    except Exception as error:
        return Failed(GenerationError(f"the evaluation failed: {reason_of(error)}"))
    return Evaluated()


class Dispatcher:
    """Hands jobs to a pool until all of them are done or have failed."""

    def __init__(self, pool: WorkerPool, jobs: Sequence[Job], reports: Reports) -> None:
        self.pool, self.reports = pool, reports
        self.waiting, self.tries = deque(jobs), Counter[Path]()
        self.starting: set[Any] = set()
        self.idle: list[Any] = []
        self.busy: dict[Any, Job] = {}
        self.lost = "none was started"

    def run(self) -> None:
        """Raises:
        GenerationError: no worker is left.
        TopopruneError: the model cannot be loaded, or the results cannot be written.
        """
        try:
            self.starting.update(self.pool.start() for _ in range(min(self.pool.size, len(self.waiting))))
            while self.waiting or self.busy:
                while self.waiting and self.idle:
                    self._submit(self.idle.pop(), self.waiting.popleft())
                if not self.busy and not self.starting:
                    raise GenerationError(f"no worker is left to evaluate with: {self.lost}")
                for worker, message in self.pool.wait([*self.starting, *self.busy]):
                    self._handle(worker, message)
        finally:
            self.pool.close()

    def _submit(self, worker: Any, job: Job) -> None:
        self.tries[job.output] += 1
        self.reports.evaluating(job)
        self.pool.submit(worker, job)
        self.busy[worker] = job

    def _handle(self, worker: Any, message: Message) -> None:
        match message:
            case Unable(error):
                raise error
            case Answered(done, total):
                self.reports.answered(self.busy[worker], done, total)
            case Died(reason):
                self._replace(worker, reason)
            case Ready():
                self.starting.discard(worker)
                self.idle.append(worker)
            case Evaluated():
                self.idle.append(worker)
                self.reports.evaluated(self.busy.pop(worker))
            case Failed(error) if isinstance(error, OF_ONE_CELL):
                self.idle.append(worker)
                self.reports.failed(self.busy.pop(worker), error)
            case Failed(error):
                raise error

    def _replace(self, worker: Any, reason: str) -> None:
        """A worker died: another one tries its job once more. One that never got ready is not replaced."""
        self.lost = reason
        self.starting.discard(worker)
        job = self.busy.pop(worker, None)
        if job is None:
            return
        self.starting.add(self.pool.start())
        if self.tries[job.output] < TRIES:
            self.reports.retrying(job, reason)
            self.waiting.append(job)
        else:
            error = GenerationError(f"{TRIES} workers died over it, the last one because {reason}")
            self.reports.failed(job, error)
