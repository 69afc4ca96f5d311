"""Which models and tasks lmms-eval knows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lmms_eval.models import (
    AVAILABLE_CHAT_TEMPLATE_MODELS,
    AVAILABLE_SIMPLE_MODELS,
    list_available_models,
)
from lmms_eval.tasks import TaskManager

from lmms_topoprune.errors import OptionError, nearest, shown
from lmms_topoprune.harness.manifests import unwrapped


def known_models() -> set[str]:
    """Every name that `lmms-eval --model` accepts, ours among them if the plugin was loaded."""
    return set(list_available_models(include_aliases=True))


def prompts_of(model: str) -> list[str]:
    """The kinds of prompts for which lmms-eval has a wrapper of this model: "chat", "simple" or both."""
    tables = {"chat": AVAILABLE_CHAT_TEMPLATE_MODELS, "simple": AVAILABLE_SIMPLE_MODELS}
    return [kind for kind, table in tables.items() if model in table]


def unwrapped_families() -> list[str]:
    """A sentence for every family whose wrapper this lmms-eval does not have."""
    return unwrapped(known_models())


def check_model(name: str) -> None:
    """Refuse an unknown model.

    Raises:
        OptionError: names the nearest known one.
    """
    if name not in (known := known_models()):
        raise OptionError(
            f"model is {shown(name)}; allowed: the {len(known)} names that lmms-eval knows, of which "
            f"`topoprune models` lists this package's{nearest(name, known)}"
        )


def check_tasks(tasks: Sequence[str], folder: str | None) -> None:
    """`refuse_unknown` among lmms-eval's own tasks and those of a folder."""
    refuse_unknown(tasks, TaskManager("ERROR", include_path=folder))


def refuse_unknown(tasks: Sequence[str], manager: TaskManager) -> None:
    """Refuse unknown tasks.

    Raises:
        OptionError: names the first unknown task and the nearest known one.
    """
    for task in tasks:
        if not manager.match_tasks([task]) and not Path(task).exists():
            known, folder = manager.all_tasks, manager.include_path
            if isinstance(folder, str) and not Path(folder).is_dir():
                raise OptionError(
                    f"include_path is {shown(folder)}, which is no folder; pass one with task files"
                )
            own = ", ".join(sorted(name for name in known if name.startswith("topoprune")))
            raise OptionError(
                f"task is {shown(task)}; allowed: the {len(known)} names that `topoprune eval --tasks list` "
                f"prints{f', {own} among them' if own else ''}{nearest(task, known)}"
            )
