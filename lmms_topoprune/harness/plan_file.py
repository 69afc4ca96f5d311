"""The plan is left beside lmms-eval's results: DATE_results.json and DATE_plan.json in one folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmms_eval.loggers.evaluation_tracker import EvaluationTracker
from lmms_eval.utils import handle_non_serializable
from loguru import logger

from lmms_topoprune._util import files
from lmms_topoprune.compat.evaluation import model_of, note_model, observe_saving, within_evaluation_of
from lmms_topoprune.errors import InputError
from lmms_topoprune.harness.user_errors import one_sentence


def leave_plan(model: Any, tracker: EvaluationTracker | None) -> None:
    """Have `tracker` write the model's plan and record whenever it saves results, and fail on any loss."""
    if tracker is None:
        return
    note_model(tracker, model)
    observe_saving(_PLANS)


class _PlanWriter:
    """Writes the plan of every tracker that has one."""

    def results_saved(self, tracker: EvaluationTracker, results: dict[str, Any]) -> None:
        if model_of(tracker) is None:
            return
        with _part_of_its_evaluation(tracker):
            _refuse_loss(tracker, _results_file(tracker))
            _write(model_of(tracker), tracker, results)

    def samples_saved(self, tracker: EvaluationTracker, task: str, count: int) -> None:
        if model_of(tracker) is None:
            return
        with _part_of_its_evaluation(tracker):
            _refuse_loss(tracker, _samples_file(tracker, task, count))


_PLANS = _PlanWriter()


@contextmanager
def _part_of_its_evaluation(tracker: EvaluationTracker) -> Iterator[None]:
    """Results are saved once simple_evaluate has returned; errors still end as they would inside."""
    with within_evaluation_of(tracker), one_sentence():
        yield


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


@dataclass(eq=False)
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

    def results_saved(self, tracker: EvaluationTracker, results: dict[str, Any]) -> None:
        file = _results_file(tracker)
        self._note_loss(tracker, file)
        plan = getattr(model_of(tracker), "plan", None)
        self.runs.append({**results, "plan": plan and plan.to_json(), "file": file and str(file)})

    def samples_saved(self, tracker: EvaluationTracker, task: str, count: int) -> None:
        self._note_loss(tracker, _samples_file(tracker, task, count))

    def _note_loss(self, tracker: EvaluationTracker, file: Path | None) -> None:
        if tracker.output_path and file is None:
            self.lost.append(str(tracker.output_path))


@contextmanager
def listening() -> Iterator[Saved]:
    """Notes all results that are saved inside, which lmms-eval does in the first process only."""
    saved = Saved()
    stop = observe_saving(saved, first=True)
    try:
        yield saved
    finally:
        stop()


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
