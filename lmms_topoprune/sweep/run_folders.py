"""All runs at or below some paths: lmms-eval's result folders and sweeps alike."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path

from lmms_topoprune.errors import InputError
from lmms_topoprune.results.reading import RESULTS, Run, find_results, read_run, seed_of
from lmms_topoprune.sweep.folder import is_sweep, read_sweep, sweeps_at


def read_runs(
    paths: Iterable[Path | str], tasks: Collection[str] = (), metric: str | None = None
) -> list[Run]:
    """All runs at or below the paths, dense ones first; runs of equal labels get longer ones.

    Args:
        paths: result folders of lmms-eval, folders of sweeps, or folders above either.
        tasks: the tasks to read; all by default.
        metric: "metric" or "metric,filter" to score by; by default what each task is known by.

    Raises:
        InputError: a path holds no results or only a part of a sweep, or a file cannot be used.
    """
    return distinct(sorted(every_run(paths, tasks, metric), key=lambda run: not run.is_dense))


def every_run(
    paths: Iterable[Path | str], tasks: Collection[str] = (), metric: str | None = None
) -> list[Run]:
    """As `read_runs`, in any order, with labels as they come."""
    found: list[Run] = []
    for path in map(Path, paths):
        sweeps = sweeps_at(path)
        for sweep in sweeps:
            found += read_sweep(sweep, tasks, metric)
        if path not in sweeps:
            found += [read_run(file, tasks, metric) for file in _plain_results(path, sweeps)]
    return found


def _plain_results(path: Path, sweeps: list[Path]) -> list[Path]:
    """The results files below a path that belong to no sweep."""
    place = path.resolve()
    if place.name == "layers" and is_sweep(place.parent):
        raise InputError(
            f"{str(path)!r} is a part of a sweep, whose cells share results; name {str(place.parent)!r}"
        )
    return [file for file in find_results(path) if not set(sweeps) & set(file.parents)]


def distinct(runs: Iterable[Run]) -> list[Run]:
    """Every plan's run once, such as that of a criterion without a seed; equal labels get longer ones.

    A threshold that drops nothing came to the dense model, which is there already.
    """
    once: dict[tuple[str, str], Run] = {}
    for run in runs:
        plan = "" if run.is_dense or run.plan is None else run.plan.hash
        once.setdefault((str(run.path.resolve()), plan), run)
    return distinct_labels(list(once.values()))


def distinct_labels(runs: list[Run]) -> list[Run]:
    """Add to equal labels what tells the runs apart: the seed, a parameter, the date, at last the folder."""
    for level in (_seed, _parameters, _date, _place):
        counts = Counter(run.label for run in runs)
        shared = {label for label, count in counts.items() if count > 1}
        details = {id(run): level(run, [r for r in runs if r.label == run.label]) for run in runs}
        runs = [
            replace(run, label=f"{run.label}{details[id(run)]}") if run.label in shared else run
            for run in runs
        ]
    return runs


def _seed(run: Run, alike: list[Run]) -> str:
    seeds = {seed_of(other.plan) for other in alike}
    return "" if len(seeds) == 1 else f" seed {seed_of(run.plan)}"


def _parameters(run: Run, alike: list[Run]) -> str:
    plans = [other.plan for other in alike if other.plan is not None]
    if run.plan is None or len(plans) < len(alike):
        return ""
    names = sorted({name for plan in plans for name in plan.parameters})
    differ = [n for n in names if len({str(plan.parameters.get(n)) for plan in plans}) > 1]
    return "".join(f" {name}={run.plan.parameters.get(name)}" for name in differ)


def _date(run: Run, alike: list[Run]) -> str:
    return f" ({run.path.name.removesuffix(RESULTS)})"


def _place(run: Run, alike: list[Run]) -> str:
    shared = os.path.commonpath([other.path.parent.absolute() for other in alike])
    return f" {run.path.parent.absolute().relative_to(shared)}"
