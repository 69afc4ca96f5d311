"""A sweep's cells on a Ray cluster: one worker a GPU, one cell a task. Ray is an optional extra."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmms_topoprune._util import files
from lmms_topoprune.errors import InputError, MissingExtraError, OptionError, UnreachableError, one_line
from lmms_topoprune.sweep.executor import (
    Answered,
    Died,
    Dispatcher,
    Evaluated,
    Failed,
    Job,
    Message,
    Opener,
    Ready,
    Reports,
    Unable,
    attempt,
    opened,
)

MOMENT = 1.0
"""Seconds between two looks at the progress of the workers."""
FORWARDED = ("HF_", "TOPOPRUNE_", "TRANSFORMERS_", "TOKENIZERS_")
"""Prefixes of the environment variables that the workers get from here."""


def require_ray() -> Any:
    """The ray package.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import ray
    except ImportError as error:
        broken = "" if getattr(error, "name", "") == "ray" else f" ({error})"
        raise MissingExtraError(
            f"a sweep on a Ray cluster needs ray{broken}; install it in the clone with: pip install '.[ray]'"
        ) from None
    return ray


def layout(nodes: Sequence[tuple[int, int]], workers: int | None) -> tuple[int, int, int]:
    """How many workers, and the GPUs and CPUs of each, on nodes of (GPUs, CPUs).

    One GPU a worker where there are GPUs. Otherwise one worker a node unless asked for more, each with as
    many CPUs as still lets all of them fit.
    """
    gpus = sum(gpu for gpu, _ in nodes)
    if gpus:
        return min(workers or gpus, gpus), 1, 0
    cpus = [cpu for _, cpu in nodes if cpu]
    size = min(workers or len(cpus), sum(cpus))
    share = max(
        (c for c in range(1, max(cpus, default=0) + 1) if sum(n // c for n in cpus) >= size), default=1
    )
    return size, 0, share


@dataclass(frozen=True)
class RayCluster:
    """Executor on a Ray cluster, which needs no file system in common with this machine.

    The workers need this package, and the model under the same path or hub name.

    Attributes:
        opener: loads a worker's model.
        address: of the cluster, such as "auto" or "ray://host:10001"; None uses $RAY_ADDRESS, or starts
            a cluster of this machine alone. A connection that exists already is used and left open.
        workers: how many at most; None for one a GPU, or without GPUs one a node.
        device: where they compute; the GPU Ray gives them if None.

    Raises:
        MissingExtraError: ray is not installed.
        OptionError: fewer than one worker.
    """

    opener: Opener
    address: str | None = None
    workers: int | None = None
    device: str | None = None
    own_models = True

    def __post_init__(self) -> None:
        require_ray()
        if self.workers is not None and self.workers < 1:
            raise OptionError(f"workers is {self.workers}; allowed: whole numbers from 1")

    def run(self, jobs: Sequence[Job], reports: Reports) -> None:
        """Raises:
        UnreachableError: there is no cluster at the address.
        GenerationError: no worker is left.
        """
        ray, ours = _connected(self.address)
        try:
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            sizes = [(int(node.get("GPU", 0)), int(node.get("CPU", 0))) for node in nodes]
            size, gpus, cpus = layout(sizes, self.workers)
            if not size:
                raise UnreachableError("the Ray cluster has neither GPUs nor CPUs for a worker")
            remote = ray.remote(num_gpus=gpus, num_cpus=cpus, max_concurrency=2)(RayWorker)
            Dispatcher(_WorkerPool(ray, remote, self.opener, self.device, size), jobs, reports).run()
        finally:
            if ours:
                ray.shutdown()


def _connected(address: str | None) -> tuple[Any, bool]:
    """Ray, connected, and whether it is up to us to disconnect."""
    ray = require_ray()
    if ray.is_initialized():
        return ray, False
    _look_for(address)
    forwarded = {name: value for name, value in os.environ.items() if name.startswith(FORWARDED)}
    try:
        ray.init(
            address=address,
            runtime_env={"env_vars": forwarded},
            log_to_driver=False,
            logging_level="error",
            **({} if address else {"include_dashboard": False}),
        )
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        said = one_line(error) or type(error).__name__
        raise UnreachableError(f"no Ray cluster at {address or 'the default address'}: {said}") from None
    return ray, True


def _look_for(address: str | None) -> None:
    """Refuse an address where nobody listens; Ray itself would try for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not (host and port.isdigit()):
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise UnreachableError(f"no Ray cluster at {address}: {error.strerror or error}") from None


class RayWorker:
    """What runs on the cluster: a loaded model. Its methods may be called while it evaluates."""

    def __init__(self) -> None:
        self.evaluator: Any = None
        self.done = (0, 0)

    def open(self, opener: Opener, device: str | None) -> Ready | Unable | Died:
        """Load the model."""
        log = Path(tempfile.mkdtemp(prefix="topoprune-")) / "lmms-eval.log"
        self.evaluator, message = opened(opener, device=device, log=log)
        return message

    def evaluate(self, job: Job) -> dict[str, bytes] | Failed:
        """Evaluate a job; returns its result files, by their path below the output folder."""
        from dataclasses import replace

        self.done = (0, 0)
        with tempfile.TemporaryDirectory(prefix="topoprune-") as folder:
            outcome = attempt(self.evaluator, replace(job, output=Path(folder)), self._count)
            if isinstance(outcome, Failed):
                return outcome
            found = sorted(path for path in Path(folder).rglob("*") if path.is_file())
            return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}

    def _count(self, done: int, total: int) -> None:
        self.done = (done, total)

    def answered(self) -> tuple[int, int]:
        return self.done


@dataclass(eq=False)
class _Worker:
    """An actor and what it was asked last."""

    actor: Any
    task: Any
    job: Job | None = None
    asked: Any = None


@dataclass
class _WorkerPool:
    ray: Any
    remote: Any
    opener: Opener
    device: str | None
    size: int
    workers: list[_Worker] = field(default_factory=list)

    def start(self) -> _Worker:
        actor = self.remote.remote()
        self.workers.append(_Worker(actor, actor.open.remote(self.opener, self.device)))
        return self.workers[-1]

    def submit(self, worker: _Worker, job: Job) -> None:
        worker.job, worker.task, worker.asked = job, worker.actor.evaluate.remote(job), None

    def wait(self, workers: Sequence[_Worker]) -> list[tuple[_Worker, Message]]:
        by_task = {worker.task: worker for worker in workers}
        finished, running = self.ray.wait(list(by_task), num_returns=1, timeout=MOMENT)
        said: list[tuple[_Worker, Message]] = [
            (by_task[ref], self._outcome(by_task[ref])) for ref in finished
        ]
        heard = [(by_task[ref], self._progress(by_task[ref])) for ref in running]
        return said + [(worker, message) for worker, message in heard if message is not None]

    def _outcome(self, worker: _Worker) -> Message:
        try:
            result = self.ray.get(worker.task)
        except self.ray.exceptions.RayError as error:
            self.workers.remove(worker)
            self.ray.kill(worker.actor)
            return Died(one_line(error)[:300])
        if not isinstance(result, dict):
            return result  # type: ignore[no-any-return]
        if worker.job is not None:
            _unpack(result, worker.job.output)
        return Evaluated()

    def _progress(self, worker: _Worker) -> Answered | None:
        """The worker's last count, without waiting for it."""
        if worker.job is None:
            return None
        if worker.asked is None:
            worker.asked = worker.actor.answered.remote()
        if not self.ray.wait([worker.asked], timeout=0)[0]:
            return None
        asked, worker.asked = worker.asked, None
        try:
            return Answered(*self.ray.get(asked))
        except self.ray.exceptions.RayError:
            return None  # its task will say so

    def close(self) -> None:
        for worker in self.workers:
            self.ray.kill(worker.actor)
        self.workers.clear()


def _unpack(found: dict[str, bytes], output: Path) -> None:
    try:
        for name, content in found.items():
            files.write_bytes(output / name, content)
    except OSError as error:
        raise InputError(f"{str(output)!r} cannot be written: {error.strerror}") from None
