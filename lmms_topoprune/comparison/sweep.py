"""Evaluate a grid of pruned models on one loaded model; whatever is finished is never done again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from lmms_topoprune.calibration.sources import Reader
from lmms_topoprune.comparison.cells import SweepFolder, read_sweep
from lmms_topoprune.comparison.grid import DENSE, Grid
from lmms_topoprune.comparison.planner import Planner
from lmms_topoprune.comparison.results import Run
from lmms_topoprune.plan import PruningPlan, format_layers
from lmms_topoprune.surgery import fingerprint


class Evaluator(Protocol):
    """What a sweep needs of a loaded model; `harness.session.Session` is one."""

    name: str
    model_args: str
    batch_size: int

    @property
    def model(self) -> Any: ...
    @property
    def processor(self) -> Any: ...
    def check_tasks(self, tasks: Sequence[str]) -> None: ...
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
    """Told how a sweep gets on; does nothing by itself."""

    def planning(self, cells: int) -> None: ...
    def planned(self, evaluations: int, finished: int) -> None: ...
    def evaluating(self, plan: PruningPlan) -> None: ...
    def answered(self, done: int, total: int) -> None: ...
    def evaluated(self, plan: PruningPlan) -> None: ...


def sweep(
    evaluator: Evaluator,
    grid: Grid,
    tasks: Sequence[str],
    folder: Path | str,
    *,
    limit: float | None = None,
    watcher: Watcher | None = None,
    readers: Mapping[str, Reader] | None = None,
    calibration_progress: bool = False,
) -> list[Run]:
    """Evaluate the dense model and every cell of a grid; cells with the same layers once.

    Killed at any moment, the same call goes on where it was. A later call may ask for more cells.

    Args:
        evaluator: the loaded dense model.
        grid: what to evaluate.
        tasks: lmms-eval tasks or groups.
        folder: where plans and results go.
        limit: questions a task.
        watcher: is told about progress.
        readers: further calibration sources.
        calibration_progress: show calibration bars.

    Returns:
        One run a cell, dense first.

    Raises:
        OptionError: an unknown task, criterion or option, or more layers than may go.
        InputError: the folder belongs to another sweep, or cannot be written.
    """
    watcher = watcher or Watcher()
    evaluator.check_tasks(tasks)
    store = SweepFolder(Path(folder))
    planner = Planner(
        evaluator.model, evaluator.processor, _source(evaluator), readers, progress=calibration_progress
    )
    planner.check([cell.options(grid.shared) for cell in grid.cells()])
    store.settle(_settings(evaluator, grid, tasks, limit))
    plans = _plans(planner, grid, store, watcher)
    todo = {store.evaluation(plan): plan for plan in plans}
    finished = [place for place in todo if place.is_dir()]
    watcher.planned(len(todo), len(finished))
    for place, plan in todo.items():
        if place not in finished:
            _evaluate(evaluator, plan, tasks, store, limit, watcher)
    wanted = {plan.hash for plan in plans}
    return [run for run in read_sweep(store.path) if run.plan is not None and run.plan.hash in wanted]


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


def _plans(planner: Planner, grid: Grid, store: SweepFolder, watcher: Watcher) -> list[PruningPlan]:
    """The plan of every cell, dense first; those on disk are not made again."""
    missing = [cell for cell in grid.cells() if store.plan(cell.name) is None]
    watcher.planning(len(missing))
    for seed in dict.fromkeys(cell.seed for cell in missing):
        cells = [cell for cell in missing if cell.seed == seed]
        wanted = [cell.options(grid.shared) for cell in cells]
        for cell, options, plan in zip(cells, wanted, planner.plans(wanted), strict=True):
            store.keep(cell.name, plan, planner.similarity(options), planner.barcodes(options))
    if store.plan(DENSE) is None:
        store.keep(DENSE, planner.dense())
    found = [store.plan(name) for name in (DENSE, *(cell.name for cell in grid.cells()))]
    return [plan for plan in found if plan is not None]


def _evaluate(
    evaluator: Evaluator,
    plan: PruningPlan,
    tasks: Sequence[str],
    store: SweepFolder,
    limit: float | None,
    watcher: Watcher,
) -> None:
    watcher.evaluating(plan)
    layers = f",layers={format_layers(plan.dropped)}" if plan.dropped else ""
    evaluator.evaluate(
        plan,
        tasks,
        store.draft(plan),
        model=evaluator.name if not layers else evaluator.name.replace(DENSE, "topopruned", 1),
        model_args=f"{evaluator.model_args}{layers}",
        limit=limit,
        progress=watcher.answered,
    )
    store.finish(plan)
    watcher.evaluated(plan)
