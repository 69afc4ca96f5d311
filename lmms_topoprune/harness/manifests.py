"""What lmms-eval's entry point asks for: one manifest a model. Imports no torch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lmms_eval.models import list_available_models
from lmms_eval.tasks import TaskManager

from lmms_topoprune import families
from lmms_topoprune.errors import OptionError, nearest, shown
from lmms_topoprune.harness import compat

if TYPE_CHECKING:
    from lmms_eval.models.registry_v2 import ModelManifest


def known_models() -> set[str]:
    """Every name that `lmms-eval --model` accepts, ours among them if the plugin was loaded."""
    return set(list_available_models(include_aliases=True))


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
            known = manager.all_tasks
            own = ", ".join(sorted(name for name in known if name.startswith("topoprune")))
            raise OptionError(
                f"task is {shown(task)}; allowed: the {len(known)} names that `topoprune eval --tasks list` "
                f"prints, {own} among them{nearest(task, known)}"
            )


log = logging.getLogger(__name__)
CLASSES = "lmms_topoprune.harness.classes"
KINDS = ("simple", "chat")


def manifests() -> list[ModelManifest]:
    """One for every model of every family that lmms-eval wraps; a warning names the other families.

    lmms-eval asks at every import of lmms_eval.models. All models can be asked for by name; only the usual
    ones (plugin.toml's [models]) are put into the tables that `lmms-eval models` and its wizard list.

    Raises:
        InputError: plugin.toml is broken; lmms-eval logs the sentence and goes on without our models.
    """
    compat.note_evaluations()
    from lmms_eval import models
    from lmms_eval.models.registry_v2 import ModelManifest

    tables = {"simple": models.AVAILABLE_SIMPLE_MODELS, "chat": models.AVAILABLE_CHAT_TEMPLATE_MODELS}
    wrapped = {kind: set(table) for kind, table in tables.items()}
    for problem in [*families.problems(), *unwrapped(set().union(*wrapped.values()))]:
        log.warning("lmms-topoprune: %s", problem)
    shown, found = families.listed(), []
    for model in families.registered().values():
        paths = {k: f"{CLASSES}.{model.name}_{k}" for k in KINDS if model.wraps in wrapped[k]}
        if not paths:
            continue
        found.append(ModelManifest(model.name, paths.get("simple"), paths.get("chat")))
        if model.name in shown:
            for kind, path in paths.items():
                tables[kind][model.name] = path
    return found


def unwrapped(known: set[str]) -> list[str]:
    """A sentence for every family whose wrapper is not among the known models of lmms-eval."""
    return [
        f"family {family.name!r} wraps {family.wraps!r}, which lmms-eval does not have"
        + nearest(family.wraps, known)
        for family in families.families().values()
        if family.wraps not in known
    ]
