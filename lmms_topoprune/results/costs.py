"""What a run took: time, memory and size, as far as its files tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmms_topoprune.plan import PruningPlan

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
