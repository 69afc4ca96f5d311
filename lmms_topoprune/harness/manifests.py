"""What lmms-eval's entry point asks for: one manifest a model. Imports no torch."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from lmms_topoprune import families
from lmms_topoprune.compat.evaluation import note_evaluations
from lmms_topoprune.errors import nearest

if TYPE_CHECKING:
    from lmms_eval.models.registry_v2 import ModelManifest

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
    note_evaluations()
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
