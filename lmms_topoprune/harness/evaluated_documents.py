"""Whether a calibration source draws from documents that the current evaluation asks about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmms_topoprune.calibration.hub import parts
from lmms_topoprune.compat.evaluation import evaluation
from lmms_topoprune.compat.tasks import single_tasks, task_config

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
