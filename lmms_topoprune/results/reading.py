"""Reading what lmms-eval leaves behind: a results file, one samples file a task, and the pruning plan."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmms_topoprune._util.malformed import DamagedError, read_object, understood
from lmms_topoprune.errors import InputError
from lmms_topoprune.families import registered
from lmms_topoprune.plan import SCHEMA, PruningPlan, format_layers
from lmms_topoprune.results.costs import costs
from lmms_topoprune.results.labels import plan_label
from lmms_topoprune.results.scores import UnitScores, unit_scores
from lmms_topoprune.results.settings import facts, parse_model_args

RESULTS = "_results.json"


@dataclass(frozen=True)
class Run:
    """One evaluation of one model on any number of tasks.

    Attributes:
        path: the results file.
        label: how tables call it.
        tasks: task -> scores of its units.
        reported: task -> the metrics lmms-eval printed.
        facts: what has to agree with another run for a fair comparison.
        plan: the pruning plan; None for a run without one.
        cost: what is known of latency_seconds, memory_bytes and so on; see `costs`.
        setting: device, batch size and the like, which decide costs but not scores.
    """

    path: Path
    label: str
    tasks: Mapping[str, UnitScores]
    reported: Mapping[str, Mapping[str, float]]
    facts: Mapping[str, Any]
    plan: PruningPlan | None
    cost: Mapping[str, float]
    setting: Mapping[str, Any] = field(default_factory=dict)

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
        raise DamagedError(
            f"{str(path)!r} holds no *{RESULTS}", "run lmms-eval with --output_path and --log_samples"
        )
    return found


def find_files(folder: Path | str, pattern: str) -> list[Path]:
    """The files below a folder whose names match, in order; hidden ones are drafts."""
    folder = Path(folder)
    return sorted(p for p in folder.rglob(pattern) if not _hidden(p.relative_to(folder)))


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def read_run(path: Path | str) -> Run:
    """Read one results file with the samples and the plan beside it.

    Raises:
        InputError: the path holds no or several results files, one cannot be read or is cut short, or the
            samples are missing.
    """
    found = find_results(path)
    if len(found) != 1:
        raise DamagedError(f"{str(path)!r} holds {len(found)} results files", "name one of them")
    with understood(found[0], "results file of lmms-eval"):
        return _run(found[0], read_object(found[0]))


def _run(path: Path, results: dict[str, Any]) -> Run:
    if not isinstance(results.get("results"), dict) or not isinstance(results.get("configs"), dict):
        raise InputError(f"{str(path)!r} is not a results file of lmms-eval")
    plan, record = _planned(path)
    if plan is None and _asks_to_prune(results):
        raise InputError(f"{str(path)!r} comes from a pruned model, but its plan is not beside it")
    samples = {task: _all_samples(path, task, results) for task in results["configs"]}
    tasks = {task: _task_scores(task, rows, results) for task, rows in samples.items()}
    return Run(
        path=path,
        label=_label(results, plan),
        tasks=tasks,
        reported={task: _reported(results["results"].get(task, {})) for task in tasks},
        facts=facts(results, samples, tasks, plan, record),
        plan=plan,
        cost=costs(results, plan, record, sum(map(len, samples.values()))),
        setting=_setting(results, record),
    )


def _planned(results: Path) -> tuple[PruningPlan | None, Mapping[str, Any]]:
    """The plan beside a results file, and what the plugin noted of the model at work."""
    path = _find_plan(results)
    if path is None:
        return None, {}
    with understood(path, "plan"):
        return PruningPlan.load(path), dict(read_object(path).get("run") or {})


def _setting(results: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    config = results.get("config", {})
    return {
        "device": record.get("device"),
        "batch size": config.get("batch_size"),
        "model": config.get("model"),
        "model_args": config.get("model_args"),
        "answers": record.get("answers"),
    }


def read_samples(results: Path, task: str) -> list[dict[str, Any]]:
    """The samples of one task, in order of their documents.

    Raises:
        InputError: the samples file is missing, empty or cut short.
    """
    path = _samples_path(results, task)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise DamagedError(f"{str(path)!r} is missing", "run lmms-eval with --log_samples") from None
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DamagedError(f"{str(path)!r} is cut short or not JSON lines", "evaluate again") from None
    try:
        rows = [json.loads(line) for line in lines if line.strip()]
    except (ValueError, RecursionError):
        raise DamagedError(f"{str(path)!r} is cut short or not JSON lines", "evaluate again") from None
    if not rows or not all(isinstance(row, dict) and "doc_id" in row for row in rows):
        raise DamagedError(f"{str(path)!r} holds no samples with a doc_id", "evaluate again")
    return sorted(rows, key=lambda row: (str(type(row["doc_id"])), row["doc_id"]))


def _all_samples(path: Path, task: str, results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The samples of a task, as many as the results were computed from."""
    rows = read_samples(path, task)
    wanted = (results.get("n-samples", {}).get(task) or {}).get("effective")
    found = len({str(row["doc_id"]) for row in rows})
    if isinstance(wanted, int) and found < wanted:
        raise DamagedError(
            f"{str(_samples_path(path, task))!r} is cut short: it holds {found} of {wanted} documents",
            "evaluate again",
        )
    return rows


def _samples_path(results: Path, task: str) -> Path:
    return results.with_name(f"{results.name.removesuffix(RESULTS)}_samples_{task}.jsonl")


def _task_scores(task: str, samples: list[dict[str, Any]], results: dict[str, Any]) -> UnitScores:
    better = results.get("higher_is_better", {}).get(task) or {}
    metrics = [name for name, higher in better.items() if higher is not False]
    if better and not metrics:
        raise InputError(f"task {task!r} has only metrics of which less is better; comparison needs another")
    metrics = metrics or list(_reported(results["results"].get(task, {})))
    return unit_scores(task, samples, metrics, _declared_chance(results["configs"][task]))


def _declared_chance(config: Mapping[str, Any]) -> float | None:
    """`metadata.chance` of a task, written in YAML as a mapping or as a list of mappings."""
    metadata = config.get("metadata")
    for entry in metadata if isinstance(metadata, list) else [metadata]:
        if isinstance(entry, Mapping) and isinstance(entry.get("chance"), (int, float)):
            return float(entry["chance"])
    return None


def _reported(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Metric -> value without lmms-eval's ",none" suffixes and standard errors."""
    return {
        name.partition(",")[0]: float(value)
        for name, value in metrics.items()
        if "," in name and "_stderr" not in name and isinstance(value, (int, float))
    }


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
    return "plan" in path.name and SCHEMA in path.read_text(encoding="utf-8", errors="replace")[:4096]


def _asks_to_prune(results: Mapping[str, Any]) -> bool:
    config = results.get("config", {})
    arguments, model = parse_model_args(config.get("model_args")), registered().get(config.get("model"))
    if model is not None and model.criterion != "dense" and not {"sparsity", "layers"} & set(arguments):
        return True  # a criterion that finds the number of layers by itself
    return arguments.get("sparsity", "0") not in ("0", "0.0") or bool({"layers", "plan"} & set(arguments))


def _label(results: Mapping[str, Any], plan: PruningPlan | None) -> str:
    if plan is None:
        return str(results.get("config", {}).get("model") or results.get("model_name") or "run")
    return plan_label(plan)
