"""What has to agree between two runs for a fair comparison."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmms_topoprune._util import files
from lmms_topoprune.families import registered
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.plan import PruningPlan
from lmms_topoprune.results.sample_files import Samples, read_samples
from lmms_topoprune.results.scores import UnitScores

NO_PLANNING = ("load", "delete", "self_test", "generate")
"""Stages of a plan that are no part of deciding which layers go."""


def costs(
    results: Mapping[str, Any], plan: PruningPlan | None, record: Mapping[str, Any], answers: int
) -> dict[str, float]:
    """Cost -> value, for what is known.

    Args:
        results: lmms-eval's results file.
        plan: the plan beside it, with the seconds and peak bytes of every stage.
        record: what the plugin noted of the model at work.
        answers: how many samples the run has.

    Returns:
        Any of latency_seconds (a mean answer, in batches as they were run), tokens_per_second,
        generation_seconds, calibration_seconds, parameters, weight_bytes and memory_bytes (peak while
        answering, without deleted layers that a sweep keeps for later).
    """
    throughput = results.get("throughput") or {}
    found = {
        "tokens_per_second": _positive(throughput.get("avg_speed")),
        "generation_seconds": _positive(throughput.get("total_elapsed_time")),
    }
    if plan is not None:
        planning = [stage for name, stage in plan.stages.items() if name not in NO_PLANNING]
        found["calibration_seconds"] = sum(float(stage.get("seconds", 0.0)) for stage in planning)
        found |= _answering(plan.stages.get("generate") or {}, record)
    answered = (record.get("answers") or {}).get("total") or answers
    if (seconds := found["generation_seconds"]) is not None:
        found["latency_seconds"] = seconds / answered
    return {name: value for name, value in found.items() if value is not None}


def _answering(stage: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, float | None]:
    size = record.get("size") or {}
    found = {name: _positive(size.get(name)) for name in ("parameters", "weight_bytes")}
    if seconds := _positive(stage.get("seconds")):
        found["generation_seconds"] = seconds  # with the preparation of images, unlike lmms-eval's clock
    if peak := _positive(stage.get("peak_bytes")):
        found["memory_bytes"] = peak - float(size.get("held_bytes", 0))
    return found


def _positive(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if 0 < number < float("inf") else None


NO_FACTS = {*PruningOptions.names(), "batch_size", "device", "device_map"}
"""Arguments that are compared, or that have no say in an answer."""


def facts(
    results: Mapping[str, Any],
    samples: Mapping[str, Samples],
    tasks: Mapping[str, UnitScores],
    plan: PruningPlan | None,
    record: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything that must agree; pruning options are left out, they are what is compared."""
    return {
        **_model(results, plan, record),
        **_versions(results, plan, record),
        **_settings(results),
        **{name: value for task in samples for name, value in _task(task, results, samples[task]).items()},
        **{f"metric of {task}": scores.metric for task, scores in tasks.items()},
        **{f"chance of {task}": scores.chance for task, scores in tasks.items()},
    }


def parse_model_args(text: str | Mapping[str, Any] | None) -> dict[str, str]:
    """Split "a=1,b={...}" at the commas outside braces; values stay text."""
    if isinstance(text, Mapping):
        return {str(key): str(value) for key, value in text.items()}
    pairs = (part.partition("=") for part in re.split(r",(?![^{]*\})", text or "") if part.strip())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _model(results: Mapping[str, Any], plan: PruningPlan | None, record: Mapping[str, Any]) -> dict[str, Any]:
    """The model and how it is loaded and asked."""
    config = results.get("config", {})
    arguments = parse_model_args(config.get("model_args"))
    found: dict[str, Any] = {f"model_args {k}": v for k, v in arguments.items() if k not in NO_FACTS}
    found["model class"] = _wrapped(config.get("model"))
    backend = re.search(r"\((\w+)\)$", str(config.get("model_backend", "")))
    found["prompt path"] = backend[1] if backend else None
    if plan is not None:
        found["weights"] = plan.fingerprint
    found |= _precision(arguments) | {n: record[n] for n in ("dtype", "attn_implementation") if n in record}
    if record.get("chat_template"):
        found["chat template"] = files.digest(record["chat_template"])
    return found


def _precision(arguments: Mapping[str, str]) -> dict[str, str]:
    """What was asked for by name; what "auto" comes to only the record of a run knows."""
    dtype, attention = arguments.get("dtype", "auto"), arguments.get("attn_implementation")
    named = {} if dtype == "auto" else {"dtype": f"torch.{dtype.removeprefix('torch.')}"}
    return named | ({"attn_implementation": attention} if attention else {})


def _wrapped(name: Any) -> str | None:
    """The lmms-eval model behind a registered name: dense_llava and topopruned_llava are both llava_hf."""
    models = registered()
    return models[name].wraps if name in models else name


def _versions(
    results: Mapping[str, Any], plan: PruningPlan | None, record: Mapping[str, Any]
) -> dict[str, Any]:
    """Of the packages that answered; a plan from a file may have been made with others."""
    used = record.get("versions") or ({} if plan is None else plan.versions)
    told = results.get("lmms_eval_version")
    return {
        # "branch@commit" is of whatever checkout lmms-eval lies in, or of the CI job: of no release.
        "lmms-eval version": None if "@" in str(told) else told,
        **{f"{name} version": version for name, version in used.items()},
    }


def _settings(results: Mapping[str, Any]) -> dict[str, Any]:
    names = ("limit", "offset", "random_seed", "numpy_seed", "torch_seed", "fewshot_seed")
    config = results.get("config", {})
    return {
        **{name: config.get(name) for name in names},
        "gen_kwargs": config.get("gen_kwargs") or None,  # lmms-eval's command writes "" for none, Python None
        "system instruction": results.get("system_instruction"),
    }


EXAM = {"target": "right answers", "input": "prompts", "media_digest": "images"}
"""What rows tell of the exam, in words."""


def _task(task: str, results: Mapping[str, Any], samples: Samples) -> dict[str, Any]:
    return {
        f"version of {task}": results.get("versions", {}).get(task),
        f"few-shot examples of {task}": results.get("n-shot", {}).get(task),
        f"documents of {task}": samples.identity,
        **{f"{EXAM[name]} of {task}": digest for name, digest in samples.exam.items()},
        f"generation_kwargs of {task}": results["configs"][task].get("generation_kwargs"),
    }


def earlier_facts(run: Path, task: str) -> dict[str, str]:
    """The digests of documents and prompts as baselines of schema 1 hold them."""
    rows = read_samples(run, task)
    return {
        f"documents of {task}": files.digest([[row["doc_id"], row.get("doc_hash")] for row in rows]),
        f"prompts of {task}": files.digest([str(row.get("input")) for row in rows]),
    }
