"""Reading what lmms-eval leaves behind: a results file, one samples file a task, and the pruning plan."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmms_topoprune import files
from lmms_topoprune.comparison.scores import UnitScores, unit_scores
from lmms_topoprune.errors import InputError
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.plan import SCHEMA, PruningPlan, format_layers

RESULTS = "_results.json"
NO_PLANNING = ("load", "delete", "self_test", "generate")
"""Stages of a plan that are no part of deciding which layers go."""


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
        cost: tokens_per_second, generation_seconds, calibration_seconds, peak_bytes where known.
    """

    path: Path
    label: str
    tasks: Mapping[str, UnitScores]
    reported: Mapping[str, Mapping[str, float]]
    facts: Mapping[str, Any]
    plan: PruningPlan | None
    cost: Mapping[str, float]

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
    found = sorted(p for p in path.rglob(f"*{RESULTS}") if not any(part.startswith(".") for part in p.parts))
    if not found:
        raise InputError(
            f"{str(path)!r} holds no *{RESULTS}; run lmms-eval with --output_path and --log_samples"
        )
    return found


def read_run(path: Path | str) -> Run:
    """Read one results file with the samples and the plan beside it.

    Raises:
        InputError: the path holds no or several results files, one cannot be read or is cut short, or the
            samples are missing.
    """
    found = find_results(path)
    if len(found) != 1:
        raise InputError(f"{str(path)!r} holds {len(found)} results files; name one of them")
    results = _read_json(found[0])
    if not isinstance(results.get("results"), dict) or not isinstance(results.get("configs"), dict):
        raise InputError(f"{str(found[0])!r} is not a results file of lmms-eval")
    plan_file = _find_plan(found[0])
    plan = PruningPlan.load(plan_file) if plan_file else None
    record = _read_json(plan_file).get("run", {}) if plan_file else {}
    if plan is None and _asks_to_prune(results):
        raise InputError(f"{str(found[0])!r} comes from a pruned model, but its plan is not beside it")
    samples = {task: read_samples(found[0], task) for task in results["configs"]}
    tasks = {task: _task_scores(task, rows, results) for task, rows in samples.items()}
    return Run(
        path=found[0],
        label=_label(results, plan),
        tasks=tasks,
        reported={task: _reported(results["results"].get(task, {})) for task in tasks},
        facts=_facts(results, samples, plan) | _setting(record),
        plan=plan,
        cost=_cost(results, plan),
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read: {error.strerror}") from None
    except ValueError:
        raise InputError(f"{str(path)!r} is cut short or not JSON; evaluate again") from None
    if not isinstance(value, dict):
        raise InputError(f"{str(path)!r} holds no JSON object")
    return value


def read_samples(results: Path, task: str) -> list[dict[str, Any]]:
    """The samples of one task, in order of their documents.

    Raises:
        InputError: the samples file is missing, empty or cut short.
    """
    path = results.with_name(f"{results.name.removesuffix(RESULTS)}_samples_{task}.jsonl")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        raise InputError(f"{str(path)!r} is missing; run lmms-eval with --log_samples") from None
    try:
        rows = [json.loads(line) for line in lines if line.strip()]
    except ValueError:
        raise InputError(f"{str(path)!r} is cut short or not JSON lines; evaluate again") from None
    if not rows or not all(isinstance(row, dict) and "doc_id" in row for row in rows):
        raise InputError(f"{str(path)!r} holds no samples with a doc_id")
    return sorted(rows, key=lambda row: (str(type(row["doc_id"])), row["doc_id"]))


def _task_scores(task: str, samples: list[dict[str, Any]], results: dict[str, Any]) -> UnitScores:
    metrics = results.get("higher_is_better", {}).get(task) or _reported(results["results"].get(task, {}))
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
    candidates = sorted(p for p in results.parent.glob("*.json") if p != results and _is_plan(p))
    same = [p for p in candidates if p.name.startswith(date)]
    alone = len(list(results.parent.glob(f"*{RESULTS}"))) == 1 and len(candidates) == 1
    chosen = same or (candidates if alone else [])
    return chosen[0] if chosen else None


def _is_plan(path: Path) -> bool:
    return "plan" in path.name and SCHEMA in path.read_text(encoding="utf-8", errors="replace")[:4096]


def _asks_to_prune(results: Mapping[str, Any]) -> bool:
    arguments = parse_model_args(results.get("config", {}).get("model_args"))
    return arguments.get("sparsity", "0") not in ("0", "0.0") or bool({"layers", "plan"} & set(arguments))


def parse_model_args(text: str | Mapping[str, Any] | None) -> dict[str, str]:
    """Split "a=1,b={...}" at the commas outside braces; values stay text."""
    if isinstance(text, Mapping):
        return {str(key): str(value) for key, value in text.items()}
    pairs = (part.partition("=") for part in re.split(r",(?![^{]*\})", text or "") if part.strip())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _label(results: Mapping[str, Any], plan: PruningPlan | None) -> str:
    if plan is None:
        return str(results.get("config", {}).get("model") or results.get("model_name") or "run")
    return plan_label(plan)


def plan_label(plan: PruningPlan) -> str:
    """How tables call the model of a plan: "topology 30 %", with the sparsity that was asked for."""
    if not plan.dropped:
        return "dense"
    return f"{plan.criterion} {100 * (plan.parameters.get('sparsity') or plan.sparsity):.3g} %"


def _facts(
    results: Mapping[str, Any], samples: Mapping[str, list[dict[str, Any]]], plan: PruningPlan | None
) -> dict[str, Any]:
    """Everything that must agree; pruning options are left out, they are what is compared."""
    config = results.get("config", {})
    arguments = parse_model_args(config.get("model_args"))
    ours = {*PruningOptions.names(), "batch_size", "device", "device_map"}
    facts: dict[str, Any] = {f"model_args {k}": v for k, v in arguments.items() if k not in ours}
    backend = re.search(r"\((\w+)\)$", str(config.get("model_backend", "")))
    facts["prompt path"] = backend[1] if backend else None
    facts["lmms-eval version"] = results.get("lmms_eval_version")
    for name in ("limit", "offset", "gen_kwargs", "random_seed", "torch_seed", "fewshot_seed"):
        facts[name] = config.get(name)
    if plan is not None:
        facts["weights"] = plan.fingerprint
        facts |= {f"{name} version": version for name, version in plan.versions.items()}
    for task, rows in samples.items():
        facts[f"version of {task}"] = results.get("versions", {}).get(task)
        facts[f"few-shot examples of {task}"] = results.get("n-shot", {}).get(task)
        facts[f"documents of {task}"] = files.digest([[row["doc_id"], row.get("doc_hash")] for row in rows])
        facts[f"prompts of {task}"] = files.digest([str(row.get("input")) for row in rows])
        facts[f"generation_kwargs of {task}"] = results["configs"][task].get("generation_kwargs")
    return facts


def _setting(record: Mapping[str, Any]) -> dict[str, Any]:
    """What the plugin recorded of the model at work."""
    facts = {name: record[name] for name in ("dtype", "attn_implementation") if name in record}
    if record.get("chat_template"):
        facts["chat template"] = files.digest(record["chat_template"])
    return facts


def _cost(results: Mapping[str, Any], plan: PruningPlan | None) -> dict[str, float]:
    cost: dict[str, float] = {}
    throughput = results.get("throughput") or {}
    for name, value in (
        ("tokens_per_second", throughput.get("avg_speed")),
        ("generation_seconds", throughput.get("total_elapsed_time")),
    ):
        try:
            cost[name] = float(value or "unknown")
        except (TypeError, ValueError):
            continue
    if plan is not None:
        stages = plan.stages
        planning = [stage for name, stage in stages.items() if name not in NO_PLANNING]
        cost["calibration_seconds"] = sum(stage.get("seconds", 0.0) for stage in planning)
        peak = [stage["peak_bytes"] for stage in stages.values() if "peak_bytes" in stage]
        if peak:
            cost["peak_bytes"] = max(peak)
    return cost
