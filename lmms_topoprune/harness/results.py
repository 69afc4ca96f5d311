"""The plan is left beside lmms-eval's results: DATE_results.json and DATE_plan.json in one folder."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from lmms_eval.loggers.evaluation_tracker import EvaluationTracker
from loguru import logger

from lmms_topoprune import files
from lmms_topoprune.errors import InputError
from lmms_topoprune.harness.callers import local_of
from lmms_topoprune.harness.exits import one_sentence


def tracker_of_caller() -> EvaluationTracker | None:
    """The tracker that lmms_eval.evaluator.simple_evaluate, somewhere above us, will save results with.

    A model is never handed the tracker, and nothing else says where the results go.
    """
    return local_of("simple_evaluate", "evaluation_tracker")


def leave_plan(model: Any, tracker: EvaluationTracker | None) -> None:
    """Have `tracker` write the model's plan and record whenever it saves results."""
    if tracker is None:
        return
    tracker.topopruned = model
    save = tracker.save_results_aggregated
    if hasattr(save, "__wrapped__"):
        return

    @functools.wraps(save)
    def save_with_plan(*args: Any, **kwargs: Any) -> None:
        save(*args, **kwargs)
        results = kwargs["results"] if "results" in kwargs else args[0]
        with one_sentence():
            _write(tracker.topopruned, tracker, results)

    tracker.save_results_aggregated = save_with_plan


def _write(model: Any, tracker: EvaluationTracker, results: dict[str, Any]) -> None:
    date = getattr(tracker, "date_id", None)
    if not tracker.output_path or date is None:
        return
    folder = Path(tracker.output_path) / tracker.general_config_tracker.model_name_sanitized
    config = results.get("config", {})
    run = {
        "results": f"{date}_results.json",
        "model": config.get("model"),
        "model_args": config.get("model_args"),
        **model.record(),
    }
    path = folder / f"{date}_plan.json"
    try:
        files.write_json(path, {**model.plan.to_json(), "run": run})
    except OSError as error:
        raise InputError(
            f"{str(path)!r} cannot be written: {error.strerror}; are the results beside it whole?"
        ) from None
    logger.info(f"lmms-topoprune: plan written to {path}")
