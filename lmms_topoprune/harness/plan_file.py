"""The plan is left beside lmms-eval's results: DATE_results.json and DATE_plan.json in one folder."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from lmms_eval.loggers.evaluation_tracker import EvaluationTracker
from lmms_eval.utils import handle_non_serializable
from loguru import logger

from lmms_topoprune._util import files
from lmms_topoprune.errors import InputError
from lmms_topoprune.harness.callers import local_of
from lmms_topoprune.harness.user_errors import one_sentence


def tracker_of_caller() -> EvaluationTracker | None:
    """The tracker that lmms_eval.evaluator.simple_evaluate, somewhere above us, will save results with.

    A model is never handed the tracker, and nothing else says where the results go.
    """
    return local_of("simple_evaluate", "evaluation_tracker")


def leave_plan(model: Any, tracker: EvaluationTracker | None) -> None:
    """Have `tracker` write the model's plan and record whenever it saves results, and fail on any loss."""
    if tracker is None:
        return
    tracker.topopruned = model
    save, save_samples = tracker.save_results_aggregated, tracker.save_results_samples
    if hasattr(save, "__wrapped__"):
        return

    @functools.wraps(save)
    def save_with_plan(*args: Any, **kwargs: Any) -> None:
        save(*args, **kwargs)
        results = kwargs["results"] if "results" in kwargs else args[0]
        with one_sentence():
            _refuse_loss(tracker, _results_file(tracker))
            _write(tracker.topopruned, tracker, results)

    @functools.wraps(save_samples)
    def save_all_samples(task_name: str, samples: Sequence[Any]) -> None:
        save_samples(task_name=task_name, samples=samples)
        with one_sentence():
            _refuse_loss(tracker, _samples_file(tracker, task_name, len(samples)))

    tracker.save_results_aggregated, tracker.save_results_samples = save_with_plan, save_all_samples


def _refuse_loss(tracker: EvaluationTracker, file: Path | None) -> None:
    """lmms-eval only warns."""
    if tracker.output_path and file is None:
        raise InputError(
            f"the results could not be written to {str(tracker.output_path)!r}; is the disk full?"
        )


def _write(model: Any, tracker: EvaluationTracker, results: dict[str, Any]) -> None:
    path = _file(tracker, "plan.json")
    if path is None:
        return
    config = results.get("config", {})
    run = {
        "results": f"{tracker.date_id}_results.json",
        "model": config.get("model"),
        "model_args": config.get("model_args"),
        **model.record(),
    }
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
        lost: folders that results or samples were asked for and could not be written to whole; lmms-eval
            only warns.
    """

    runs: list[dict[str, Any]] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


@contextmanager
def listening() -> Iterator[Saved]:
    """Notes all results that are saved inside, which lmms-eval does in the first process only."""
    saved = Saved()
    original, original_samples = (
        EvaluationTracker.save_results_aggregated,
        EvaluationTracker.save_results_samples,
    )

    # Not functools.wraps: what wears __wrapped__ is taken for leave_plan's own wrapper.
    def save(tracker: Any, results: dict[str, Any], samples: Any, datetime_str: str) -> None:
        original(tracker, results, samples, datetime_str)
        file = _results_file(tracker)
        note_loss(tracker, file)
        plan = getattr(getattr(tracker, "topopruned", None), "plan", None)
        saved.runs.append({**results, "plan": plan and plan.to_json(), "file": file and str(file)})

    def save_samples(tracker: Any, task_name: str, samples: Any) -> None:
        original_samples(tracker, task_name, samples)
        note_loss(tracker, _samples_file(tracker, task_name, len(samples)))

    def note_loss(tracker: Any, file: Path | None) -> None:
        if tracker.output_path and file is None:
            saved.lost.append(str(tracker.output_path))

    with mock.patch.multiple(
        EvaluationTracker, save_results_aggregated=save, save_results_samples=save_samples
    ):
        yield saved


def as_json(value: Any) -> str:
    """Results, or what holds them, as lmms-eval itself would write them."""
    return json.dumps(value, default=handle_non_serializable)


def _file(tracker: EvaluationTracker, ending: str) -> Path | None:
    """Where a tracker writes a file; None if it writes none, or did not get so far."""
    date = getattr(tracker, "date_id", None)
    if not tracker.output_path or date is None:
        return None
    return (
        Path(tracker.output_path) / tracker.general_config_tracker.model_name_sanitized / f"{date}_{ending}"
    )


def _results_file(tracker: EvaluationTracker) -> Path | None:
    """The results file that a tracker has written, if it is whole."""
    file = _file(tracker, "results.json")
    try:
        # lmms-eval leaves closing to the garbage collector, which swallows what fails then.
        return file if file and json.loads(file.read_text(encoding="utf-8")) else None
    except (OSError, ValueError):
        return None


def _samples_file(tracker: EvaluationTracker, task: str, count: int) -> Path | None:
    """The file of a task's samples that a tracker has written, if it holds that many lines."""
    file = _file(tracker, f"samples_{task}.jsonl")
    try:
        with file.open("rb") if file else nullcontext(()) as lines:
            return file if sum(line.endswith(b"\n") for line in lines) >= count else None
    except OSError:
        return None
