"""What is touched of other libraries that they do not promise, and how something of theirs is replaced."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

_ABSENT = object()


@dataclass(frozen=True)
class Touched:
    """Something of another library that it may change without notice.

    Attributes:
        where: "module" or "module:Class".
        name: an attribute of it; of a class also one that its own code sets on instances.
        version: of the library, that this was made for.
        without: what breaks when it is gone.
    """

    where: str
    name: str
    version: str
    without: str

    def problem(self) -> str | None:
        """One sentence if it is gone, else None."""
        module, _, kind = self.where.partition(":")
        try:
            owner: Any = importlib.import_module(module)
            owner = getattr(owner, kind) if kind else owner
        except (ImportError, AttributeError):
            return f"{self.where} is gone (made for {self.version}); {self.without}"
        if hasattr(owner, self.name) or (kind and _sets(owner, self.name)):
            return None
        return f"{self.where} has no {self.name} (made for {self.version}); {self.without}"


def _sets(kind: type, name: str) -> bool:
    """Whether a class's own code sets an attribute of that name on its instances."""
    try:
        source = inspect.getsource(kind)
    except (OSError, TypeError):
        return False
    return f"self.{name}" in source or f'"{name}"' in source


_EVALUATOR, _UTILS = "lmms_eval.evaluator", "lmms_eval.utils"
_TRACKER = "lmms_eval.loggers.evaluation_tracker:EvaluationTracker"
_CACHE = "lmms_eval.caching.response_cache:ResponseCache"
_MANAGER = "lmms_eval.tasks:TaskManager"
OMNI = "lmms_eval.models.simple.qwen2_5_omni"
_NO_PLAN = "no plan is left beside the results, and calibration may draw from what is evaluated"
_NO_CHECK = "calibration may draw from what is evaluated"
_BY_LIBRARY = {
    "lmms-eval 0.7.3": (
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
    ),
    "transformers 5.24": (
        (
            "transformers:PreTrainedModel",
            "from_pretrained",
            "a model is never loaded without the layers that its plan drops",
        ),
        (
            "transformers.core_model_loading",
            "_materialize_copy",
            "loading without the dropped layers reads the first page of each of their tensors",
        ),
        (
            "transformers.modeling_utils:PreTrainedModel",
            "_from_config",
            "no weightless model can be built, so no layer can be deleted",
        ),
        (
            "transformers.modeling_utils:PreTrainedModel",
            "_no_split_modules",
            "the layers of a model on several devices are not told apart",
        ),
        (
            "transformers.configuration_utils:PretrainedConfig",
            "_attn_implementation",
            "a plan's run section does not say which attention answered",
        ),
        (
            "transformers:AutoModelForImageTextToText",
            "_model_mapping",
            "the family `huggingface` cannot tell models with and without eyes apart",
        ),
        (
            "transformers.video_processing_utils:VideoProcessorMixin",
            "fetch_videos",
            "chat models open no videos where torchcodec is not installed",
        ),
        (
            "transformers.dynamic_module_utils",
            "TIME_OUT_REMOTE_CODE",
            "a checkpoint with code of its own leads to a question on standard output",
        ),
    ),
    "loguru 0.7": (("loguru:logger", "add", "lmms-eval writes colors into files and pipes"),),
    "torch 2.14": (
        (
            "torch.distributed.distributed_c10d",
            "_get_default_store",
            "several processes do not hear of each other's failures",
        ),
    ),
}
TOUCHED = tuple(
    Touched(where, name, version, without)
    for version, rows in _BY_LIBRARY.items()
    for where, name, without in rows
)


@contextmanager
def replaced(owner: object, **values: Any) -> Iterator[None]:
    """Within this block the owner's attributes have these values."""
    before = {name: vars(owner).get(name, _ABSENT) for name in values}
    try:
        for name, value in values.items():
            setattr(owner, name, value)
        yield
    finally:
        for name, value in before.items():
            if value is not _ABSENT:
                setattr(owner, name, value)
            elif name in vars(owner):
                delattr(owner, name)


@contextmanager
def replaced_names(**values: Any) -> Iterator[None]:
    """`replaced` by dotted names of modules' attributes: replaced_names(**{"package.module.name": value})."""
    with ExitStack() as stack:
        for path, value in values.items():
            module, _, name = path.rpartition(".")
            stack.enter_context(replaced(importlib.import_module(module), **{name: value}))
        yield
