"""A sweep's cells in several processes of this machine, each with its own model on its own device."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from lmms_topoprune._util.follow_parent import follow_parent
from lmms_topoprune.errors import OptionError
from lmms_topoprune.sweep.executor import (
    Answered,
    Died,
    Dispatcher,
    Job,
    Message,
    Opener,
    Reports,
    attempt,
    opened,
)

PATIENCE = 5.0
"""Seconds that a worker which was told to end has left."""


def devices(workers: int, asked: str | None = None) -> list[str | None]:
    """The device of each worker: the one asked for, else the GPUs in turn, else whatever is there."""
    gpus = torch.cuda.device_count() if asked is None and torch.cuda.is_available() else 0
    return [f"cuda:{i % gpus}" if gpus else asked for i in range(workers)]


def threads(workers: int) -> int:
    """Threads of each worker: its share of the cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(torch.get_num_threads(), cores // workers))


@dataclass(frozen=True)
class Processes:
    """Executor with spawned processes. A script that uses it needs `if __name__ == "__main__":`.

    Attributes:
        opener: loads a worker's model.
        workers: how many.
        device: where all of them compute; the GPUs in turn if None.
        logs: folder for what lmms-eval says in each.

    Raises:
        OptionError: fewer than one worker.
    """

    opener: Opener
    workers: int
    device: str | None = None
    logs: Path | None = None
    own_models = True

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise OptionError(f"workers is {self.workers}; allowed: whole numbers from 1")

    def run(self, jobs: Sequence[Job], reports: Reports) -> None:
        pool = _WorkerPool(self.opener, devices(self.workers, self.device), threads(self.workers), self.logs)
        Dispatcher(pool, jobs, reports).run()


@dataclass(eq=False)
class _Worker:
    """A process, our end of the pipe to it, its place among the devices, and whether it has a job."""

    process: Any
    pipe: Connection
    place: int
    busy: bool = True


@dataclass
class _WorkerPool:
    opener: Opener
    devices: list[str | None]
    threads: int
    logs: Path | None
    workers: list[_Worker] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.size = len(self.devices)

    def start(self) -> _Worker:
        """A process where there is none: the first device without one."""
        taken = {worker.place for worker in self.workers}
        place = next(i for i in range(self.size) if i not in taken)
        log = None if self.logs is None else self.logs / f"lmms-eval-{place}.log"
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        opener = pickle.dumps(partial(self.opener, device=self.devices[place], log=log))
        serve = f"{__name__}:{serve_jobs.__name__}"
        process = context.Process(
            target=follow_parent, args=(serve, opener, self.threads, theirs), daemon=True
        )
        process.start()
        theirs.close()
        self.workers.append(_Worker(process, ours, place))
        return self.workers[-1]

    def submit(self, worker: _Worker, job: Job) -> None:
        worker.busy = True
        try:
            worker.pipe.send(job)
        except OSError:
            return  # it died a moment ago; wait() says so

    def wait(self, workers: Sequence[_Worker]) -> list[tuple[_Worker, Message]]:
        by_pipe = {worker.pipe: worker for worker in workers}
        return [(by_pipe[pipe], self._handle(by_pipe[pipe])) for pipe in wait(list(by_pipe))]  # type: ignore[index]

    def _handle(self, worker: _Worker) -> Message:
        try:
            message: Message = worker.pipe.recv()
        except (EOFError, OSError):
            self.workers.remove(worker)
            worker.process.join(PATIENCE)  # a closed pipe comes before the exit code
            _end([worker])
            return Died(f"its process ended with exit code {worker.process.exitcode}")
        worker.busy = isinstance(message, Answered)
        return message

    def close(self) -> None:
        _end(self.workers)
        self.workers.clear()


def _end(workers: Sequence[_Worker]) -> None:
    """The idle ones leave when their pipe is closed, the others are asked to, and at last made to."""
    for worker in workers:
        worker.pipe.close()
        if worker.busy:
            worker.process.terminate()
    for worker in workers:
        worker.process.join(PATIENCE)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()


def serve_jobs(opener: bytes, threads: int, pipe: Connection) -> None:
    """What a worker does: load the model, then one job after the other until nobody has any.

    Called by `follow_parent`, which watches the sweep from before this module is imported.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the sweep ends its workers
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # an orderly exit leaves no semaphore behind
    sys.stdout = sys.stderr  # standard output is the sweep's
    torch.set_num_threads(threads)
    evaluator, message = opened(pickle.loads(opener))
    pipe.send(message)
    while evaluator is not None:
        try:
            job = pipe.recv()
        except EOFError:
            return
        pipe.send(attempt(evaluator, job, lambda done, total: pipe.send(Answered(done, total))))
