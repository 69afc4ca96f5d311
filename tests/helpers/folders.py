"""Tiny result folders in lmms-eval's layout, written by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lmms_topoprune.plan import PruningPlan

DATE = "20260101_120000"


def plan(dropped: tuple[int, ...] = (3, 4), criterion: str = "topology", **fields: Any) -> PruningPlan:
    values: dict[str, Any] = {"model": "tiny", "fingerprint": "f" * 16, "layers": 10}
    return PruningPlan(**{**values, **fields}, dropped=dropped, criterion=criterion)


def row(doc_id: int, **metrics: Any) -> dict[str, Any]:
    return {"doc_id": doc_id, "doc_hash": f"h{doc_id}", "input": f"question {doc_id}", **metrics}


def exact(scores: list[float]) -> list[dict[str, Any]]:
    return [row(i, exact_match=s) for i, s in enumerate(scores)]


def pairs(scores: list[tuple[float, float]], category: str = "color") -> list[dict[str, Any]]:
    """Two questions an image, in MME's shape."""
    flat = [(image, value) for image, both in enumerate(scores) for value in both]
    metric = [{"question_id": f"{category}{q}", "category": category, "score": s} for q, s in flat]
    return [row(i, mme_perception_score=value) for i, value in enumerate(metric)]


def write(
    folder: Path,
    samples: dict[str, list[dict[str, Any]]],
    plan: PruningPlan | None = None,
    chance: dict[str, float] | None = None,
    date: str = DATE,
    record: dict[str, Any] | None = None,
    **config: Any,
) -> Path:
    """Write one run and return its results file; `record` is what the plugin notes of the model."""
    folder.mkdir(parents=True, exist_ok=True)
    arguments = {"model": "dense_llava", "model_args": "pretrained=tiny", "limit": None}
    declared = {t: {"metadata": [{"version": 1, "chance": c}]} for t, c in (chance or {}).items()}
    metric_names = {t: [k for k in r[0] if k not in row(0)] for t, r in samples.items()}
    results = {
        "results": {t: {f"{m},none": 0.5 for m in names} for t, names in metric_names.items()},
        "configs": {t: declared.get(t, {}) for t in samples},
        "higher_is_better": {t: dict.fromkeys(names, True) for t, names in metric_names.items()},
        "versions": dict.fromkeys(samples, 1),
        "n-shot": dict.fromkeys(samples, 0),
        "n-samples": {t: {"original": 500, "effective": len(rows)} for t, rows in samples.items()},
        "config": {**arguments, "model_backend": "x.Y (chat)", **config},
        "lmms_eval_version": "0.7.3",
        "total_evaluation_time_seconds": "12.5",
        "throughput": {"avg_speed": 40.0, "total_elapsed_time": 10.0},
    }
    path = folder / f"{date}_results.json"
    path.write_text(json.dumps(results))
    for task, rows in samples.items():
        lines = "".join(json.dumps(r) + "\n" for r in rows)
        (folder / f"{date}_samples_{task}.jsonl").write_text(lines)
    if plan is not None:
        text = json.dumps(plan.to_json() | {"run": record or {}})
        (folder / f"{date}_plan.json").write_text(text)
    return path
