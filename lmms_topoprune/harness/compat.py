"""Every patch of lmms_eval, and what is touched of it that it does not promise; made for lmms-eval 0.7.3.

lmms-eval hands a model neither the tracker that saves results nor the tasks that are evaluated, swallows what
fails while it saves, and knows a model by its argument string alone. `TOUCHED` lists what is used in spite of
that, with what breaks without it; tests/harness/test_lmms_eval_compat.py fails with that sentence when one is
gone. The model classes of single wrappers are put right in model_classes.py. The same for transformers and
torch is _util/compat.py. Nothing heavy is imported before it is needed: lmms-eval's entry point imports this
file with `lmms_eval.models`, long before torch.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from copy import deepcopy
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from types import ModuleType
from typing import Any, Protocol

from lmms_topoprune._util.compat import Touched, replaced
from lmms_topoprune._util.files import digest
from lmms_topoprune.errors import InputError

_MADE_FOR = "lmms-eval 0.7.3"
_EVALUATOR, _UTILS = "lmms_eval.evaluator", "lmms_eval.utils"
_TRACKER = "lmms_eval.loggers.evaluation_tracker:EvaluationTracker"
_CACHE = "lmms_eval.caching.response_cache:ResponseCache"
_MANAGER = "lmms_eval.tasks:TaskManager"
OMNI = "lmms_eval.models.simple.qwen2_5_omni"
_NO_PLAN = "no plan is left beside the results, and calibration may draw from what is evaluated"
_NO_CHECK = "calibration may draw from what is evaluated"
TOUCHED = tuple(
    Touched(where, name, _MADE_FOR, without)
    for where, name, without in (
        (_UTILS, "_smart_comma_split", "mistakes in model_args are not told in a sentence"),
        (_UTILS, "positional_deprecated", _NO_PLAN),
        (_EVALUATOR, "simple_evaluate", _NO_PLAN),
        ("lmms_eval.models", "AVAILABLE_SIMPLE_MODELS", "`lmms-eval models` does not list this package's"),
        ("lmms_eval.models", "AVAILABLE_CHAT_TEMPLATE_MODELS", "`lmms-eval models` does not list them"),
        ("lmms_eval.models", "MODEL_REGISTRY_V2", "no wrapper of lmms-eval is found"),
        ("lmms_eval.models.registry_v2", "ModelManifest", "no model can be registered"),
        (_TRACKER, "save_results_aggregated", "no plan is left beside the results"),
        (_TRACKER, "save_results_samples", "samples that could not be written are not noticed"),
        (_TRACKER, "date_id", "the plan cannot be named like the results beside it"),
        (_TRACKER, "general_config_tracker", "the folder of the results is not known"),
        (_CACHE, "execute", "the response cache serves answers of another plan"),
        (_CACHE, "_model_fingerprint_hash", "use_cache is refused for a pruned model"),
        (_MANAGER, "initialize_tasks", "`topoprune eval` indexes lmms-eval's tasks twice"),
        (_MANAGER, "_get_config", _NO_CHECK),
        (_MANAGER, "_get_tasklist", _NO_CHECK),
        (_MANAGER, "task_index", _NO_CHECK),
        (_MANAGER, "all_subtasks", _NO_CHECK),
        (
            "lmms_eval.api.task:ConfigurableMessagesTask",
            "construct_requests",
            "chat models answer no choices",
        ),
        ("lmms_eval.api.instance:Instance", "metadata", "answers that only even out processes are counted"),
        ("lmms_eval.models.chat.huggingface", "AutoModel", "the family `huggingface` loads headless models"),
        ("lmms_eval.models.simple.glm4v", "Glm4vForConditionalGeneration", "GLM-4V is loaded as its mixture"),
        ("lmms_eval.models.simple.glm4v", "Glm4vMoeForConditionalGeneration", "the same"),
        ("accelerate:Accelerator", "num_processes", "several processes on a CPU ask for GPUs"),
        (OMNI, "Qwen2_5OmniForConditionalGeneration", "Qwen2.5-Omni is loaded with what speaks"),
        (OMNI, "Qwen2_5OmniProcessor", "Qwen2.5-Omni takes another model's processor from the hub"),
    )
)


# The running evaluation ---------------------------------------------------------------------------


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
def within(running: Evaluation | None) -> Iterator[None]:
    """Be part of an evaluation that has returned already: its results are being saved."""
    token = _RUNNING.set(running)
    try:
        yield
    finally:
        _RUNNING.reset(token)


def note_evaluations() -> None:
    """Have simple_evaluate note its arguments, from its definition on.

    Called when lmms-eval looks for plugins.
    lmms_eval.evaluator is being imported at that moment, or is not yet, so the function itself is not there
    to be wrapped; its decorator is. Where the module is there already (this package was registered by hand),
    the
    function is replaced in it: a reference that somebody took earlier stays as it is and evaluates without.
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
        with within(running):
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


# Saved results ------------------------------------------------------------------------------------


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
        shown = getattr(getattr(getattr(self, "topopruned", None), "answers", None), "media", {})
        for sample in samples:
            if digest := shown.get((task_name, sample.get("doc_id"))):
                sample["media_digest"] = digest  # two runs can be told to have seen the same images
        save_samples(self, task_name=task_name, samples=samples)
        for observer in [*_OBSERVERS]:
            observer.samples_saved(self, task_name, len(samples))

    tracker_class.save_results_aggregated = save_results_aggregated
    tracker_class.save_results_samples = save_results_samples


# The response cache -------------------------------------------------------------------------------

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


# Tasks --------------------------------------------------------------------------------------------


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


# Wrappers' imports and processes -------------------------------------------------------------------


@contextmanager
def video_readers_optional() -> Iterator[None]:
    """Within this block `import decord` and `import moviepy` succeed; afterwards sys.modules is as it was.

    Wrappers import these video readers, which few have, at their top or when they open a video. A stand-in
    that stayed would make others believe that decord is there, so those that ask at import
    (lmms_eval.protocol, transformers) are asked before.
    """
    import lmms_eval.protocol  # noqa: F401
    from transformers.utils.import_utils import is_decord_available

    from lmms_topoprune.harness.media import stand_ins

    is_decord_available()
    missing = {
        name: module
        for name, module in stand_ins().items()
        if name not in sys.modules and importlib.util.find_spec(name) is None
    }
    sys.modules.update(missing)
    try:
        yield
    finally:
        for name in missing:
            del sys.modules[name]


@contextmanager
def each_process_alone(device: str) -> Iterator[None]:
    """Within this block a wrapper on a CPU takes its process for the only one.

    By itself it asks for one GPU a process. Each loads the whole model, and lmms-eval tells the object its
    rank and its share of the requests when it evaluates.
    """
    if not device.startswith("cpu"):
        yield
        return
    from accelerate import Accelerator

    with replaced(Accelerator, num_processes=property(lambda _: 1)):
        yield
