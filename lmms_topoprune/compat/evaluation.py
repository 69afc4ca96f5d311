"""Patches of lmms-eval's running evaluation, of its tasks and of what it saves; made for lmms-eval 0.7.3.

lmms-eval hands a model neither the tracker that saves results nor the tasks that are evaluated, swallows what
fails while it saves, and knows a model by its argument string alone. Nothing heavy is imported before it is
needed: lmms-eval's entry point imports this file with `lmms_eval.models`, long before torch.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from copy import deepcopy
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from types import ModuleType
from typing import Any, Protocol

from lmms_topoprune._util.files import digest
from lmms_topoprune.compat.touched import replaced
from lmms_topoprune.errors import InputError

_EVALUATOR, _UTILS = "lmms_eval.evaluator", "lmms_eval.utils"


@dataclass
class Evaluation:
    """A call of lmms_eval.evaluator.simple_evaluate while it runs.

    Attributes:
        tracker: saves its results; None if nothing does.
        task_manager: knows its tasks; None if none was passed.
        tasks: names, or settings, of the tasks asked for.
        cli_args: parsed arguments of the command line; None when it was called from Python.
        model: made from a model string meanwhile; its plan goes into the results.
    """

    tracker: Any = None
    task_manager: Any = None
    tasks: Sequence[Any] = ()
    cli_args: Any = None
    model: Any = None


_RUNNING: ContextVar[Evaluation | None] = ContextVar("topoprune_evaluation", default=None)


def evaluation() -> Evaluation:
    """The evaluation that is calling us; an empty one if none is."""
    return _RUNNING.get() or Evaluation()


@contextmanager
def _within(running: Evaluation | None) -> Iterator[None]:
    token = _RUNNING.set(running)
    try:
        yield
    finally:
        _RUNNING.reset(token)


def note_model(tracker: Any, model: Any) -> None:
    """Note on a tracker whose results it saves, and in which evaluation; lmms-eval tells it neither."""
    tracker.topoprune = (model, evaluation())


def model_of(tracker: Any) -> Any:
    """The model that `note_model` noted on a tracker; None if it did not."""
    return getattr(tracker, "topoprune", (None, None))[0]


@contextmanager
def within_evaluation_of(tracker: Any) -> Iterator[None]:
    """Be part of a tracker's evaluation, which has returned already when its results are saved."""
    with _within(getattr(tracker, "topoprune", (None, None))[1]):
        yield


def note_evaluations() -> None:
    """Have simple_evaluate note its arguments, from its definition on.

    Called when lmms-eval looks for plugins. lmms_eval.evaluator is being imported at that moment, or is not
    yet, so the function itself is not there to be wrapped; its decorator is. Where the module is there
    already (this package was registered by hand), the function is replaced in it: a reference that somebody
    took earlier stays as it is and evaluates without.
    """
    evaluator = sys.modules.get(_EVALUATOR)
    if evaluator is not None and hasattr(evaluator, "simple_evaluate"):
        evaluator.simple_evaluate = _noted(evaluator.simple_evaluate)  # type: ignore[attr-defined]
    _when_imported(_UTILS, _wrap_decorator)


def _wrap_decorator(utils: ModuleType) -> None:
    original = getattr(utils, "positional_deprecated", None)
    if original is None or hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def positional_deprecated(function: Callable[..., Any]) -> Callable[..., Any]:
        decorated: Callable[..., Any] = original(function)
        return _noted(decorated) if function.__name__ == "simple_evaluate" else decorated

    utils.positional_deprecated = positional_deprecated  # type: ignore[attr-defined]


def _noted(simple_evaluate: Callable[..., Any]) -> Callable[..., Any]:
    if hasattr(simple_evaluate, "topoprune_noted"):
        return simple_evaluate
    signature = inspect.signature(simple_evaluate)

    @functools.wraps(simple_evaluate)
    def evaluate(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind_partial(*args, **kwargs).arguments
        running = Evaluation(
            given.get("evaluation_tracker"),
            given.get("task_manager"),
            given.get("tasks") or (),
            given.get("cli_args"),
        )
        with _within(running):
            results = simple_evaluate(*args, **kwargs)
        if isinstance(results, dict) and running.model is not None:
            results["plan"] = running.model.plan.to_json()
            # lmms-eval notes its own option, also where model_args said another size.
            results["config"]["batch_size"] = running.model.batch_size
        return results

    evaluate.topoprune_noted = True  # type: ignore[attr-defined]
    return evaluate


def _when_imported(name: str, change: Callable[[ModuleType], None]) -> None:
    """Change a module now if it is imported, else as soon as it is."""
    if name in sys.modules:
        change(sys.modules[name])
    elif not any(isinstance(finder, _Finder) and finder.name == name for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder(name, change))


@dataclass(eq=False)
class _Finder(MetaPathFinder):
    """Stands before the usual finders until one module has been found."""

    name: str
    change: Callable[[ModuleType], None]

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        if fullname != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            _run_after(spec.loader, self.change)
        return spec


def _run_after(loader: Loader, change: Callable[[ModuleType], None]) -> None:
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        execute(module)
        change(module)

    loader.exec_module = exec_module  # type: ignore[method-assign]


class Observer(Protocol):
    """Hears of what trackers have saved, or tried to."""

    def results_saved(self, tracker: Any, results: dict[str, Any]) -> None: ...

    def samples_saved(self, tracker: Any, task: str, count: int) -> None: ...


_OBSERVERS: list[Observer] = []


def observe_saving(observer: Observer, first: bool = False) -> Callable[[], None]:
    """Tell an observer whenever any EvaluationTracker has saved; returns what ends that.

    Args:
        observer: is told once, however often it is passed.
        first: before those that are told already, who may end the run.

    lmms-eval offers no such hook, and only logs what it could not write.
    """
    from lmms_eval.loggers.evaluation_tracker import EvaluationTracker

    _observe(EvaluationTracker)
    if observer not in _OBSERVERS:
        _OBSERVERS.insert(0 if first else len(_OBSERVERS), observer)
    return lambda: _OBSERVERS.remove(observer)


def _observe(tracker_class: Any) -> None:
    save, save_samples = tracker_class.save_results_aggregated, tracker_class.save_results_samples
    if hasattr(save, "__wrapped__"):
        return

    @functools.wraps(save)
    def save_results_aggregated(self: Any, results: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        save(self, results, *args, **kwargs)
        for observer in [*_OBSERVERS]:
            observer.results_saved(self, results)

    @functools.wraps(save_samples)
    def save_results_samples(self: Any, task_name: str, samples: Sequence[Any]) -> None:
        shown = getattr(getattr(model_of(self), "answers", None), "media", {})
        for sample in samples:
            if digest := shown.get((task_name, sample.get("doc_id"))):
                sample["media_digest"] = digest  # two runs can be told to have seen the same images
        save_samples(self, task_name=task_name, samples=samples)
        for observer in [*_OBSERVERS]:
            observer.samples_saved(self, task_name, len(samples))

    tracker_class.save_results_aggregated = save_results_aggregated
    tracker_class.save_results_samples = save_results_samples


_HASH = "_model_fingerprint_hash"


def tell_plans_apart() -> None:
    """Make the response cache's key depend on `cache_identity` of the model asked.

    By itself it knows a model by its argument string, and a plan can change behind that string. Models
    without that attribute are not touched.
    """
    from lmms_eval.caching.response_cache import ResponseCache

    original = ResponseCache.execute
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def execute(self: Any, lm: Any, reqtype: str, requests: list[Any]) -> list[Any]:
        identity = getattr(lm, "cache_identity", None)
        if identity is not None:
            if not hasattr(self, _HASH):
                raise InputError(
                    "use_cache is given; this version of lmms-eval cannot tell plans apart, leave it out"
                )
            setattr(self, _HASH, digest([self.model_fingerprint, identity]))
        answers: list[Any] = original(self, lm, reqtype, requests)
        return answers

    ResponseCache.execute = execute


@contextmanager
def colors_on_screens_only() -> Iterator[None]:
    """Within this block what is logged has colors on screens alone.

    By itself lmms-eval colors its log wherever it goes, into files and pipes, too.
    """
    from loguru import logger

    add = logger.add

    def add_sink(sink: Any, **given: Any) -> int:
        screen = "NO_COLOR" not in os.environ and getattr(sink, "isatty", bool)()
        return add(sink, **{**given, "colorize": bool(given.get("colorize") and screen)})

    with replaced(logger, add=add_sink):
        yield


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
