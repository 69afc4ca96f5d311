"""The plan is left beside lmms-eval's results: DATE_results.json and DATE_plan.json in one folder."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from lmms_eval.loggers.evaluation_tracker import EvaluationTracker
from lmms_eval.utils import handle_non_serializable
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


@dataclass
class Saved:
    """What lmms-eval's trackers saved.

    Attributes:
        runs: for each evaluation its results, with "plan" (None without one) and "file" (None if not
            written).
        lost: folders that a results file was asked for and could not be written to; lmms-eval only warns.
    """

    runs: list[dict[str, Any]] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


@contextmanager
def listening() -> Iterator[Saved]:
    """Notes all results that are saved inside, which lmms-eval does in the first process only."""
    saved = Saved()
    original = EvaluationTracker.save_results_aggregated

    # Not functools.wraps: what wears __wrapped__ is taken for leave_plan's own wrapper.
    def save(tracker: Any, results: dict[str, Any], samples: Any, datetime_str: str) -> None:
        original(tracker, results, samples, datetime_str)
        file = _file(tracker)
        if tracker.output_path and file is None:
            saved.lost.append(str(tracker.output_path))
        plan = getattr(getattr(tracker, "topopruned", None), "plan", None)
        saved.runs.append({**results, "plan": plan and plan.to_json(), "file": file})

    with mock.patch.object(EvaluationTracker, "save_results_aggregated", save):
        yield saved


def as_json(value: Any) -> str:
    """Results, or what holds them, as lmms-eval itself would write them."""
    return json.dumps(value, default=handle_non_serializable)


def _file(tracker: EvaluationTracker) -> str | None:
    """The results file that a tracker has written."""
    if not tracker.output_path or not hasattr(tracker, "date_id"):
        return None
    folder = Path(tracker.output_path) / tracker.general_config_tracker.model_name_sanitized
    file = folder / f"{tracker.date_id}_results.json"
    return str(file) if file.is_file() else None
