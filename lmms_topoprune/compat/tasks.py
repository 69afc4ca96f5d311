"""Patches of lmms-eval's tasks, and what is read of them; made for lmms-eval 0.7.3."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from lmms_topoprune.compat.touched import replaced


def ask_for_likelihoods() -> None:
    """Let tasks ask chat models for likelihoods as they ask simple ones.

    By itself lmms-eval asserts that chat models only generate, so no multiple choice runs with them.
    """
    from lmms_eval.api.task import ConfigurableMessagesTask, ConfigurableTask

    original = ConfigurableMessagesTask.construct_requests
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def construct_requests(self: Any, doc_id: int, ctx: str, **kwargs: Any) -> Any:
        if self.OUTPUT_TYPE in ("loglikelihood", "multiple_choice"):
            return ConfigurableTask.construct_requests(self, doc_id, ctx, **kwargs)
        return original(self, doc_id, ctx, **kwargs)

    ConfigurableMessagesTask.construct_requests = construct_requests


@contextmanager
def tasks_indexed_once() -> Iterator[None]:
    """Within this block a TaskManager of folders that one had before gets its index, which took seconds."""
    from lmms_eval.tasks import TaskManager

    index, known = TaskManager.initialize_tasks, {}

    def initialize_tasks(self: Any, include_path: Any = None, include_defaults: bool = True) -> Any:
        folders = (str(include_path), include_defaults)
        if folders not in known:
            known[folders] = index(self, include_path, include_defaults)
        return deepcopy(known[folders])

    with replaced(TaskManager, initialize_tasks=initialize_tasks):
        yield


def task_config(manager: Any, name: str) -> dict[str, Any]:
    """A task's YAML file with what it includes; empty for a task written in Python."""
    try:
        return dict(manager._get_config(name))
    except Exception:  # lmms-eval says what is wrong with it when it loads the task
        return {}


def single_tasks(manager: Any, name: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Single tasks below a task, group or tag, with their settings."""
    if isinstance(name, Mapping):
        task = str(name.get("task", ""))
        yield task, {**task_config(manager, task), **name}
    elif not isinstance(name, str):
        return
    elif name in manager.all_subtasks:
        yield name, task_config(manager, name)
    elif name in manager.task_index:
        below = manager._get_tasklist(name)
        for child in task_config(manager, name).get("task", ()) if below == -1 else below:
            yield from single_tasks(manager, child)
