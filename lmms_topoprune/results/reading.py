"""Reading what lmms-eval leaves behind: a results file, one samples file a task, and the pruning plan."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmms_topoprune import registry
from lmms_topoprune._util import files
from lmms_topoprune._util.checked_files import CorruptFileError, read_object, understood
from lmms_topoprune.errors import InputError, unknown
from lmms_topoprune.families import registered
from lmms_topoprune.heal_options import HealingOptions
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.plan import SCHEMA, PruningPlan, format_layers
from lmms_topoprune.results.sample_files import Samples, read_columns, read_samples
from lmms_topoprune.results.scores import UnitScores, reported_metrics, task_scores
from lmms_topoprune.results.settings import costs, facts, parse_model_args

GRID = ("version", "code", "sparsity", "seed")
"""Parameters that say which cell of a grid it is, or nothing that was asked for."""


def variant(plan: PruningPlan) -> str:
    """The criterion with every parameter that differs from its own default, the repair and the healing."""
    return _asked_for(plan) if plan.dropped else "dense"


def _asked_for(plan: PruningPlan) -> str:
    token = None if "points" in plan.calibration else plan.calibration.get("token")  # a cloud has none
    asked = {**plan.parameters, "token": token}
    changed = [f"{name}={value}" for name, value in asked.items() if _differs(plan, name, value)]
    repair = [f"repair={plan.repair['method']}"] if plan.repair else []
    heal = [f"heal={healing_text(plan)}"] if plan.heal else []
    return " ".join([plan.criterion, *changed, *repair, *heal])


def healing_text(plan: PruningPlan) -> str:
    """The settings of a plan's healing that tell it from others, such as "steps=200"; empty without one."""
    return HealingOptions.of_plan(plan.heal).text if plan.heal else ""


def _differs(plan: PruningPlan, name: str, value: Any) -> bool:
    if name in GRID or value is None:
        return False
    if registry.is_reference(plan.criterion):  # a plan runs no code: the common defaults
        criterion, options = registry.Criterion(plan.criterion), PruningOptions(criterion=registry.DENSE.name)
    elif (known := registry.by_plain_name(plan.criterion)) is not None:
        criterion, options = known, PruningOptions(criterion=plan.criterion)
    else:
        return False  # an explicit list of layers, or a criterion this version does not know
    if name == "token" and criterion.state == "none":
        return False  # it reads no state, so no token
    own = {"selection": criterion.selection, "state": criterion.state}
    default = (
        own.get(name, "auto") if getattr(options, name, None) == "auto" else getattr(options, name, value)
    )
    return bool(value != default)


def plan_label(plan: PruningPlan) -> str:
    """Variant and sparsity: the one that was asked for, or what a threshold came to, if only to 0."""
    if not plan.dropped and plan.parameters.get("selection") != "threshold":
        return "dense"
    return f"{_asked_for(plan)} {100 * (plan.parameters.get('sparsity') or plan.sparsity):.3g} %"


def series(plan: PruningPlan) -> str:
    """Equal for plans that differ in nothing but the seed of the calibration set or of the criterion."""
    drawn = ("seed", "fingerprint", "massive", "rises")  # the last two are what was found
    parts = (plan.parameters, plan.calibration, plan.repair, plan.heal)
    same = [{name: value for name, value in part.items() if name not in drawn} for part in parts]
    found = [plan.fingerprint, plan.layers, plan.criterion, *same]
    return json.dumps(found, sort_keys=True, default=str)


def seed_of(plan: PruningPlan | None) -> int:
    """What drew the calibration samples or the layers, else those of the repair or the healing; or 0."""
    if plan is None:
        return 0
    drawn = (part.get("seed") for part in (plan.calibration, plan.parameters, plan.repair, plan.heal))
    return next((int(seed) for seed in drawn if seed is not None), 0)


RESULTS = "_results.json"
READERS = 4
__all__ = [
    "RESULTS",
    "Run",
    "check_whole",
    "find_files",
    "find_results",
    "plan_beside",
    "read_run",
    "read_samples",
]


@dataclass(frozen=True)
class Run:
    """One evaluation of one model on any number of tasks.

    Attributes:
        path: the results file.
        label: how tables call it.
        tasks: task, or "task [filter]" where it has several -> scores of its units.
        reported: task -> the metrics lmms-eval printed.
        facts: what has to agree with another run for a fair comparison.
        plan: the pruning plan; None for a run without one.
        cost: what is known of latency_seconds, memory_bytes and so on; see `costs`.
        setting: device, batch size and the like, which decide costs but not scores.
        unscored: task -> why it has no score.
    """

    path: Path
    label: str
    tasks: Mapping[str, UnitScores]
    reported: Mapping[str, Mapping[str, float]]
    facts: Mapping[str, Any]
    plan: PruningPlan | None
    cost: Mapping[str, float]
    setting: Mapping[str, Any] = field(default_factory=dict)
    unscored: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_dense(self) -> bool:
        return self.plan is None or not self.plan.dropped

    @property
    def dropped(self) -> str:
        return "none" if self.plan is None else format_layers(self.plan.dropped)


def find_results(path: Path | str) -> list[Path]:
    """Every results file at or below a path, oldest first in its folder.

    Raises:
        InputError: there is no such path, or no results file below it.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.exists():
        raise InputError(f"result folder {str(path)!r} does not exist")
    found = find_files(path, f"*{RESULTS}")
    if not found:
        raise CorruptFileError(
            f"{str(path)!r} holds no *{RESULTS}", "run lmms-eval with --output_path and --log_samples"
        )
    return found


def find_files(folder: Path | str, pattern: str) -> list[Path]:
    """The files below a folder whose names match, in order; hidden ones are drafts."""
    folder = Path(folder)
    return sorted(p for p in folder.rglob(pattern) if not files.is_hidden(p.relative_to(folder)))


def read_run(path: Path | str, tasks: Collection[str] = (), metric: str | None = None) -> Run:
    """Read one results file with the samples and the plan beside it.

    A task that cannot be scored does not take the others with it: it is named in the run's `unscored`.

    Args:
        path: the results file, or a folder with one.
        tasks: the tasks to read; all by default.
        metric: "metric" or "metric,filter" to score by; by default what each task is known by.

    Raises:
        InputError: the path holds no or several results files, one cannot be read or is cut short, the
            samples are missing or contradict the results, or no task can be scored.
    """
    path, results = _whole(path)
    with understood(path, "results file of lmms-eval"):
        return _run(path, results, tasks, metric)


def check_whole(path: Path | str, agreeing: bool = False) -> None:
    """Whether an evaluation is all there, whatever its scores may mean.

    Args:
        path: the results file, or a folder with one.
        agreeing: also whether the samples agree with what the results file reports.

    Raises:
        CorruptFileError, InputError: a file is missing, cut short or no file of lmms-eval.
    """
    path, results = _whole(path)
    with understood(path, "results file of lmms-eval"):
        for task in results["configs"]:
            rows = _columns(path, task, results)
            if agreeing:
                _agreeing(task, rows, results)
        _planned(path)


def _agreeing(
    task: str, rows: Samples, results: Mapping[str, Any], metric: str | None = None
) -> dict[str, UnitScores] | str:
    """The scores of a task, or why it has none; rows that contradict the results are damage."""
    try:
        return task_scores(task, rows, results, metric)
    except CorruptFileError as error:
        raise CorruptFileError(f"{str(rows.path)!r}: {error.args[0]}", *error.args[1:]) from None
    except InputError as error:
        return str(error)


def _whole(path: Path | str) -> tuple[Path, dict[str, Any]]:
    found = find_results(path)
    if len(found) != 1:
        raise CorruptFileError(f"{str(path)!r} holds {len(found)} results files", "name one of them")
    results = read_object(found[0])
    if not isinstance(results.get("results"), dict) or not isinstance(results.get("configs"), dict):
        raise InputError(f"{str(found[0])!r} is not a results file of lmms-eval")
    return found[0], results


def _run(path: Path, results: dict[str, Any], tasks: Collection[str], metric: str | None) -> Run:
    plan, record = _planned(path)
    if plan is None and _asks_to_prune(results):
        raise InputError(f"{str(path)!r} comes from a pruned model, but its plan is not beside it")
    unknown_tasks = sorted(set(tasks) - set(results["configs"]))
    if unknown_tasks:
        raise unknown("task", unknown_tasks[0], results["configs"])
    wanted = [task for task in results["configs"] if not tasks or task in tasks]
    with ThreadPoolExecutor(max_workers=READERS) as pool:  # Arrow reads outside of Python's lock
        samples = dict(zip(wanted, pool.map(lambda task: _columns(path, task, results), wanted), strict=True))
    scores: dict[str, UnitScores] = {}
    unscored: dict[str, str] = {}
    for task, rows in samples.items():
        found = _agreeing(task, rows, results, metric)
        if isinstance(found, str):
            unscored[task] = found
        else:
            scores |= found
    if unscored and not scores:
        raise InputError(next(iter(unscored.values())))
    return Run(
        path=path,
        label=_label(results, plan),
        tasks=scores,
        reported={task: reported_metrics(results["results"].get(task, {})) for task in samples},
        facts=facts(results, samples, scores, plan, record),
        plan=plan,
        cost=costs(results, plan, record, sum(rows.documents for rows in samples.values())),
        setting=_setting(results, record),
        unscored=unscored,
    )


def _planned(results: Path) -> tuple[PruningPlan | None, Mapping[str, Any]]:
    """The plan beside a results file, and what the plugin noted of the model at work."""
    path = _find_plan(results)
    if path is None:
        return None, {}
    with understood(path, "plan"):
        return PruningPlan.load(path), dict(read_object(path).get("run") or {})


def plan_beside(results: Path) -> PruningPlan | None:
    """The plan beside a results file; None if there is none.

    Raises:
        InputError: it is malformed.
    """
    return _planned(results)[0]


def _setting(results: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    config = results.get("config", {})
    return {
        "device": record.get("device"),
        "batch size": config.get("batch_size"),
        "model": config.get("model"),
        "model_args": config.get("model_args"),
        "answers": record.get("answers"),
    }


def _columns(path: Path, task: str, results: Mapping[str, Any]) -> Samples:
    """The samples of a task, as many as the results were computed from."""
    metrics = [*(results.get("higher_is_better", {}).get(task) or {})]
    metrics += reported_metrics(results["results"].get(task, {}))
    samples = read_columns(path, task, metrics)
    wanted = (results.get("n-samples", {}).get(task) or {}).get("effective")
    found = samples.documents
    if isinstance(wanted, int) and found < wanted:
        raise CorruptFileError(
            f"{str(samples.path)!r} is cut short: it holds {found} of {wanted} documents", "evaluate again"
        )
    return samples


def _find_plan(results: Path) -> Path | None:
    """The plan beside a results file: the one of the same date if there is one, else the only one."""
    date = results.name.removesuffix(RESULTS)
    own = results.with_name(f"{date}_plan.json")
    if own.exists():
        return own
    candidates = sorted(p for p in results.parent.glob("*.json") if p != results and _is_plan(p))
    same = [p for p in candidates if p.name.startswith(date)]
    alone = len(list(results.parent.glob(f"*{RESULTS}"))) == 1 and len(candidates) == 1
    chosen = same or (candidates if alone else [])
    return chosen[0] if chosen else None


def _is_plan(path: Path) -> bool:
    return "plan" in path.name and path.is_file() and SCHEMA.encode() in files.read_bytes(path)[:4096]


COUNTS = ("drop", "parameters", "layers")
"""Options that ask for a number of layers in another way than sparsity does."""


def _asks_to_prune(results: Mapping[str, Any]) -> bool:
    config = results.get("config", {})
    arguments, model = parse_model_args(config.get("model_args")), registered().get(config.get("model"))
    if model is not None and model.criterion != "dense" and not {"sparsity", *COUNTS} & set(arguments):
        return True  # a criterion that finds the number of layers by itself
    return arguments.get("sparsity", "0") not in ("0", "0.0") or bool({"plan", *COUNTS} & set(arguments))


def _label(results: Mapping[str, Any], plan: PruningPlan | None) -> str:
    if plan is None:
        return str(results.get("config", {}).get("model") or results.get("model_name") or "run")
    return plan_label(plan)
