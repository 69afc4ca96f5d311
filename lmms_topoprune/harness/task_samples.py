"""Calibration samples from a task of lmms-eval, calibration=task:NAME or task:NAME:SPLIT.

And whether a source draws from documents that the current evaluation asks about.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from lmms_eval.tasks import TaskManager, get_task_dict
from PIL import Image
from tenacity import RetryError

from lmms_topoprune._util.packaged import shared_path
from lmms_topoprune.calibration.hub import check_reachable, parts
from lmms_topoprune.calibration.media_files import bounded, check_video, whole_images
from lmms_topoprune.calibration.rows import Read, take
from lmms_topoprune.calibration.samples import Sample
from lmms_topoprune.compat.evaluation import evaluation, single_tasks, task_config
from lmms_topoprune.errors import InputError, OptionError, UnreachableError, nearest, reason_of, shown

CALIBRATION_SPLITS = ("training_split", "validation_split", "test_split")
EVALUATED_SPLITS = ("test_split", "validation_split")


@dataclass(frozen=True)
class Documents:
    """A split of a data set: its name or folder, its configuration, its files if these are named."""

    dataset: str
    config: str
    files: str
    split: str

    @classmethod
    def of_task(cls, config: Mapping[str, Any], split: str) -> Documents:
        """Documents of a task of lmms-eval, from its YAML file."""
        files = (config.get("dataset_kwargs") or {}).get("data_files") or ""
        files = files.get(split, files) if isinstance(files, Mapping) else files
        name = str(config.get("dataset_path") or "")
        return cls(_place(name), str(config.get("dataset_name") or ""), str(files), split)

    @classmethod
    def of_hub(cls, source: str) -> Documents:
        name, config, split = parts(source)
        return cls(_place(name), config, "", split)

    def overlap(self, other: Documents) -> bool:
        """Whether both may hold the same documents.

        One file may be several splits. A data set's only configuration may be named or not, and a name
        without files stands for all of them: where one side does not say it, they count as the same.
        """
        if self.dataset != other.dataset:
            return False
        if self.split != other.split:
            return self.files == other.files != "" and "[" not in self.split + other.split
        return _alike(self.config, other.config) and _alike(self.files, other.files)


def evaluated(source: str, manager: Any = None, tasks: Sequence[Any] = ()) -> tuple[str, ...]:
    """Tasks that ask about documents of this source.

    Args:
        source: of a calibration set.
        manager: knows the tasks, and the source's task; by default that of the current evaluation.
        tasks: names; by default those of the current evaluation.
    """
    manager = manager or evaluation().task_manager
    asked = tasks or evaluation().tasks
    kind, _, rest = source.partition(":")
    if manager is None or not asked or kind not in ("task", "hf"):
        return ()
    drawn = _drawn(manager, rest) if kind == "task" else Documents.of_hub(rest)
    found = []
    for name in asked:
        for task, config in single_tasks(manager, name):
            split = next((str(config[key]) for key in EVALUATED_SPLITS if config.get(key)), "")
            if drawn.overlap(Documents.of_task(config, split)):
                found.append(task)
    return tuple(dict.fromkeys(found))


def calibration_split(config: Mapping[str, Any], split: str = "") -> str:
    """The split that calibration draws from: the given one, or training before validation before test."""
    return split or next((str(config[key]) for key in CALIBRATION_SPLITS if config.get(key)), "")


def _drawn(manager: Any, source: str) -> Documents:
    name, _, split = source.partition(":")
    config = task_config(manager, name)
    return Documents.of_task(config, calibration_split(config, split))


def _alike(one: str, other: str) -> bool:
    return one == other or "" in (one, other)


def _place(dataset: str) -> str:
    """The same text for every way to write a local path, or a name of the hub, which ignores case."""
    return str(Path(dataset).resolve()) if dataset and Path(dataset).exists() else dataset.lower()


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
        cause = (error.last_attempt.exception() if isinstance(error, RetryError) else None) or error
        raise UnreachableError(
            f"the data of task {name!r} cannot be loaded ({reason_of(cause)[:200]}); "
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
        raise InputError(f"document {index}: {reason_of(error)}") from error


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
