"""Calibration samples from a task of lmms-eval: calibration=task:NAME or task:NAME:SPLIT."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from lmms_eval.tasks import TaskManager, get_task_dict
from PIL import Image
from tenacity import RetryError

from lmms_topoprune._util.packaged import shared_path
from lmms_topoprune.calibration.hub import check_reachable
from lmms_topoprune.calibration.images import bounded, whole_images
from lmms_topoprune.calibration.rows import Read, take
from lmms_topoprune.calibration.samples import Sample
from lmms_topoprune.calibration.video import check_video
from lmms_topoprune.compat.evaluation import evaluation
from lmms_topoprune.compat.tasks import task_config
from lmms_topoprune.errors import InputError, OptionError, UnreachableError, nearest, shown
from lmms_topoprune.harness.evaluated_documents import calibration_split


def task_samples(source: str, count: int, seed: int, strict: bool = False) -> list[Sample]:
    """Up to `count` documents of a task as the task asks them, drawn by `seed`.

    Broken documents are skipped, counted and reported, as in every source; with `strict` they are errors.

    Raises:
        OptionError: no such task or split.
        UnreachableError: the task's data cannot be loaded.
        InputError: its documents cannot be used.
    """
    name, _, split = source.partition(":")
    task = _task(name)
    docs = _documents(task, name, split)
    indices = list(range(len(docs)))
    random.Random(seed).shuffle(indices)
    return take((partial(_sample, task, docs, index) for index in indices), count, f"task:{source}", strict)


def _task(name: str) -> Any:
    # The user's --include_path is known to the manager that simple_evaluate was given.
    manager = evaluation().task_manager or TaskManager(include_path=str(shared_path("tasks")))
    if name not in manager.all_subtasks:
        hint = nearest(name, manager.all_subtasks)
        raise OptionError(
            f"calibration is {shown('task:' + name)}; allowed: a single task of lmms-eval{hint}"
        )
    if dataset := task_config(manager, name).get("dataset_path"):
        check_reachable(str(dataset), cached=True)
    try:
        return get_task_dict([name], manager, "simple")[name]
    except Exception as error:
        cause = error.last_attempt.exception() if isinstance(error, RetryError) else error
        reason = " ".join(str(cause).split())[:200]
        raise UnreachableError(
            f"the data of task {name!r} cannot be loaded ({type(cause).__name__}: {reason}); "
            "pass calibration=embedded or a JSONL file"
        ) from error


def _documents(task: Any, name: str, split: str) -> Any:
    split = calibration_split(vars(task.config), split)
    if split not in task.dataset:
        raise OptionError(f"calibration is 'task:{name}:{split}'; allowed splits: {', '.join(task.dataset)}")
    return task.dataset[split]


def _sample(task: Any, docs: Any, index: int) -> Read:
    """One document as a sample.

    Raises:
        InputError: the data set cannot decode it, or the task's own functions fail on it.
    """
    try:
        with whole_images():
            return _as_asked(task, docs, index)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise InputError(f"document {index}: {type(error).__name__}: {reason}") from error


def _as_asked(task: Any, docs: Any, index: int) -> Read:
    doc = docs[index]
    visuals = task.doc_to_visual(doc) or []
    image = _first_image(visuals)
    video = next((Path(visual) for visual in visuals if isinstance(visual, str)), None)
    if video is not None and image is None:
        check_video(video)
    read = Read.of(task.doc_to_text(doc).strip(), image, video)
    return read if image is None else replace(read, again=partial(_image, task, docs, index))


def _image(task: Any, docs: Any, index: int) -> Image.Image:
    with whole_images():
        found = _first_image(task.doc_to_visual(docs[index]) or [])
    if found is None:
        raise InputError(f"document {index} has no image any more")
    return found


def _first_image(visuals: Sequence[Any]) -> Image.Image | None:
    return next((bounded(visual) for visual in visuals if isinstance(visual, Image.Image)), None)
