"""Calibration samples from a task of lmms-eval: calibration=task:NAME or task:NAME:SPLIT."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from lmms_eval.tasks import TaskManager, get_task_dict
from PIL import Image

from lmms_topoprune.calibration.samples import Sample
from lmms_topoprune.errors import InputError, OptionError, UnreachableError, nearest
from lmms_topoprune.harness.batched import PLACEHOLDERS
from lmms_topoprune.harness.callers import local_of
from lmms_topoprune.shared_files import shared_path


def task_samples(source: str, count: int, seed: int) -> list[Sample]:
    """Up to `count` documents of a task as the task asks them, drawn by `seed`.

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
    try:
        return [_sample(task, docs[index]) for index in indices[:count]]
    except Exception as error:
        raise InputError(
            f"calibration is 'task:{source}', whose documents cannot be read: {error}"
        ) from error


def _task(name: str) -> Any:
    # The user's --include_path is known to the manager that simple_evaluate was given.
    manager = local_of("simple_evaluate", "task_manager") or TaskManager(
        include_path=str(shared_path("tasks"))
    )
    if name not in manager.all_subtasks:
        hint = nearest(name, manager.all_subtasks)
        raise OptionError(f"calibration is 'task:{name}'; allowed: a single task of lmms-eval{hint}")
    try:
        return get_task_dict([name], manager, "simple")[name]
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UnreachableError(
            f"the data of task {name!r} cannot be loaded ({type(error).__name__}: {reason}); "
            "pass calibration=embedded or a JSONL file"
        ) from error


def _documents(task: Any, name: str, split: str) -> Any:
    split = split or task.config.training_split or task.config.validation_split or task.config.test_split
    if split not in task.dataset:
        raise OptionError(f"calibration is 'task:{name}:{split}'; allowed splits: {', '.join(task.dataset)}")
    return task.dataset[split]


def _sample(task: Any, doc: dict[str, Any]) -> Sample:
    visuals = task.doc_to_visual(doc) or []
    image = next((visual.convert("RGB") for visual in visuals if isinstance(visual, Image.Image)), None)
    video = next((Path(visual) for visual in visuals if isinstance(visual, str)), None)
    instruction = task.doc_to_text(doc)
    for marker in PLACEHOLDERS.values():
        instruction = instruction.replace(marker, "")
    return Sample(instruction.strip(), image, video)
