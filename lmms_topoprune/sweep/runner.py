"""Evaluate a grid of pruned models on one loaded model; whatever is finished is never done again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from lmms_topoprune.calibration.calibration_set import CalibrationSets
from lmms_topoprune.calibration.sources import Reader
from lmms_topoprune.errors import InputError, TopopruneError
from lmms_topoprune.heal_options import HealingOptions
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.pipeline import Planner
from lmms_topoprune.plan import PruningPlan, format_layers
from lmms_topoprune.results.reading import Run
from lmms_topoprune.surgery import fingerprint
from lmms_topoprune.sweep.executor import Executor, Job, Serial
from lmms_topoprune.sweep.folder import SweepFolder
from lmms_topoprune.sweep.grid import DENSE, Grid, questions

T = TypeVar("T")


class Evaluator(Protocol):
    """What a sweep needs of a loaded model; `harness.session.Session` is one."""

    name: str
    model_args: str
    batch_size: int

    @property
    def calibrations(self) -> CalibrationSets | None: ...
    @property
    def sums(self) -> Any: ...
    @property
    def model(self) -> Any: ...
    @property
    def processor(self) -> Any: ...
    def check_tasks(self, tasks: Sequence[str]) -> None: ...
    def asked_about(self, source: str, tasks: Sequence[str]) -> tuple[str, ...]: ...
    def expect(self, plans: Sequence[PruningPlan]) -> None: ...
    def evaluate(
        self,
        plan: PruningPlan,
        tasks: Sequence[str],
        output: Path,
        *,
        model: str,
        model_args: str,
        limit: float | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Path: ...


class Watcher:
    """Told how a sweep gets on; does nothing by itself. Several plans may be under way at once."""

    def damaged(self, reason: str) -> None: ...
    def planning(self, cells: int) -> None: ...
    def planned(self, evaluations: int, finished: int) -> None: ...
    def evaluating(self, plan: PruningPlan) -> None: ...
    def answered(self, plan: PruningPlan, done: int, total: int) -> None: ...
    def evaluated(self, plan: PruningPlan) -> None: ...
    def retrying(self, plan: PruningPlan, reason: str) -> None: ...
    def failed(self, plan: PruningPlan, error: TopopruneError) -> None: ...


def sweep(
    evaluator: Evaluator,
    grid: Grid,
    tasks: Sequence[str],
    folder: Path | str,
    *,
    limit: float | None = None,
    executor: Executor | None = None,
    watcher: Watcher | None = None,
    readers: Mapping[str, Reader] | None = None,
    calibration_progress: bool = False,
) -> list[Run]:
    """Evaluate the dense model and every cell of a grid; cells with the same layers once.

    Killed at any moment, the same call goes on where it was. A later call may ask for more cells. What
    was damaged since it was finished is done again.

    Args:
        evaluator: the loaded dense model.
        grid: what to evaluate.
        tasks: lmms-eval tasks or groups.
        folder: where plans and results go.
        limit: questions a task, or below 1 their share; all by default.
        executor: evaluates the cells; by default one after the other on the evaluator itself.
        watcher: is told about progress.
        readers: further calibration sources.
        calibration_progress: show calibration bars.

    Returns:
        One run a cell, dense first.

    Raises:
        OptionError: an unknown task, criterion or option, more layers than may go or none, or calibration on
            what a task asks about.
        InputError: the folder belongs to another sweep, is in use by one or cannot be written, or results
            are incomplete.
        TopopruneError: some cells failed; they are named, and all others are finished.
    """
    watcher, limit = watcher or Watcher(), questions(limit)
    evaluator.check_tasks(tasks)
    store = SweepFolder(Path(folder))
    planner = Planner(
        _source(evaluator),
        evaluator.model,
        evaluator.processor,
        readers=readers,
        asked=cache(partial(evaluator.asked_about, tasks=tuple(tasks))),
        progress=calibration_progress,
        calibrations=evaluator.calibrations,
        sums=evaluator.sums,  # what trials found repairs the cells, too
    )
    wanted = [cell.options(grid.shared) for cell in grid.points()]
    planner.check(*wanted, draw=False)
    planner.check_drops(*wanted)
    with store.alone():
        store.settle(_settings(evaluator, grid, tasks, limit))
        plans = plans_of(planner, grid, store, watcher)
        _evaluate(evaluator, plans, tasks, store, limit, executor or Serial(evaluator), watcher)
        return store.runs(plans)


def _evaluate(
    evaluator: Evaluator,
    plans: Sequence[PruningPlan],
    tasks: Sequence[str],
    store: SweepFolder,
    limit: float | None,
    executor: Executor,
    watcher: Watcher,
) -> None:
    """Evaluate what is not finished yet."""
    todo = {store.evaluation(plan): plan for plan in plans}
    missing = [plan for plan in todo.values() if not _finished(plan, store, watcher)]
    watcher.planned(len(todo), len(todo) - len(missing))
    if missing:
        if not executor.own_models:
            evaluator.expect(missing)
        cells = _Evaluations(store, watcher)
        with off_the_gpu(evaluator.model) if executor.own_models else nullcontext():
            try:
                executor.run([_job(evaluator, plan, tasks, store, limit) for plan in missing], cells)
            finally:  # an error or Ctrl-C leaves nothing unfinished behind
                store.discard(missing)
        cells.complain(len(todo))


@dataclass
class _Evaluations:
    """Keeps the sweep's folder while its cells are evaluated, and passes on how that goes."""

    store: SweepFolder
    watcher: Watcher
    failures: list[tuple[Job, TopopruneError]] = field(default_factory=list)

    def evaluating(self, job: Job) -> None:
        self.store.begin(job.plan)
        self.watcher.evaluating(job.plan)

    def answered(self, job: Job, done: int, total: int) -> None:
        self.watcher.answered(job.plan, done, total)

    def evaluated(self, job: Job) -> None:
        self.store.finish(job.plan)
        self.watcher.evaluated(job.plan)

    def retrying(self, job: Job, reason: str) -> None:
        self.watcher.retrying(job.plan, reason)

    def failed(self, job: Job, error: TopopruneError) -> None:
        self.failures.append((job, error))
        self.watcher.failed(job.plan, error)

    def complain(self, evaluations: int) -> None:
        """Raise the first failure's kind of error, with all of them named."""
        if self.failures:
            said = "; ".join(f"{job}: {error}" for job, error in self.failures)
            first = self.failures[0][1]
            raise type(first)(f"{len(self.failures)} of {evaluations} models failed: {said}") from first


@contextmanager
def off_the_gpu(model: Any) -> Iterator[None]:
    """Leave the GPU to workers with models of their own; a model that is spread over several stays."""
    devices = {parameter.device for parameter in model.parameters()}
    device = devices.pop()
    if devices or device.type == "cpu" or getattr(model, "hf_device_map", None):
        yield
        return
    model.to("cpu")
    if device.type == "cuda":
        torch.cuda.empty_cache()
    try:
        yield
    finally:
        model.to(device)


def _source(evaluator: Evaluator) -> str:
    return str(getattr(evaluator, "source", evaluator.model_args))


def _settings(evaluator: Evaluator, grid: Grid, tasks: Sequence[str], limit: float | None) -> dict[str, Any]:
    return {
        "model": evaluator.name,
        "model_args": evaluator.model_args,
        "fingerprint": fingerprint(evaluator.model),
        "dtype": str(evaluator.model.dtype),
        "batch_size": evaluator.batch_size,
        "tasks": list(tasks),
        "limit": limit,
        "options": dict(grid.shared),
    }


def plans_of(planner: Planner, grid: Grid, store: SweepFolder, watcher: Watcher) -> list[PruningPlan]:
    """The plan of every cell, dense first; those on disk are not made again."""
    cells = {cell.name: cell for cell in grid.points()}
    names = (DENSE, *cells)
    asked_for = {name: _asked_for(cell.options(grid.shared)) for name, cell in cells.items()}
    lacking = {n for n in names if _sound(partial(store.plan, n, asked_for.get(n)), watcher) is None}
    missing = [cell for cell in grid.points() if cell.name in lacking]
    watcher.planning(len(missing))
    for seed in dict.fromkeys(cell.seed for cell in missing):
        own = [cell for cell in missing if cell.seed == seed]
        wanted = [cell.options(grid.shared) for cell in own]
        for cell, options, plan in zip(own, wanted, planner.plans(wanted), strict=True):
            store.keep(cell.name, plan, planner.similarity(options), planner.barcodes(options))
    if DENSE in lacking:
        store.keep(DENSE, planner.dense())
    found = [store.plan(name) for name in names]
    return [plan for plan in found if plan is not None]


def _asked_for(options: PruningOptions) -> dict[str, Any]:
    """Options that a cell's plan repeats as they are."""
    return {"criterion": options.criterion, "sparsity": options.sparsity}


def _finished(plan: PruningPlan, store: SweepFolder, watcher: Watcher) -> bool:
    return store.evaluation(plan).is_dir() and _sound(partial(store.check, plan), watcher) is not None


def _sound(read: Callable[[], T | None], watcher: Watcher) -> T | None:
    """What is on the disk; what is damaged there counts as missing, and the watcher is told."""
    try:
        return read()
    except InputError as error:
        watcher.damaged(error.args[0])
        return None


def _job(
    evaluator: Evaluator, plan: PruningPlan, tasks: Sequence[str], store: SweepFolder, limit: float | None
) -> Job:
    """The job of a plan; its results name the lmms-eval command that gives the same ones."""
    layers = f",layers={format_layers(plan.dropped)}" if plan.dropped else ""
    if plan.repair:
        layers += f",repair={plan.repair['method']}"
    if plan.heal:
        layers += f",heal={HealingOptions.of_plan(plan.heal).text}"
    if facts := plan.repair or plan.heal:
        asked = {"calibration": "source", "samples": "samples", "seed": "seed"}
        layers += "".join(f",{option}={facts[name]}" for option, name in asked.items())
    return Job(
        plan,
        tuple(tasks),
        store.draft(plan),
        model=evaluator.name if not layers else evaluator.name.replace(DENSE, "topopruned", 1),
        model_args=f"{evaluator.model_args}{layers}",
        limit=limit,
    )
