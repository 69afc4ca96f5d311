"""plugin.toml, read: which models this package registers with lmms-eval. Imports no torch."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmms_topoprune._util.packaged import shared_path
from lmms_topoprune.criteria.registry import Criterion
from lmms_topoprune.errors import InputError, nearest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from lmms_eval.models.registry_v2 import ModelManifest

CLASSES = "lmms_topoprune.harness.classes"
KINDS = ("simple", "chat")
CRITERION_KEYS = {field.name for field in fields(Criterion)} - {"name"}
FAMILY_KEYS = {"wraps", "generation"}


@dataclass(frozen=True)
class Registered:
    """One registered model: a criterion for a family.

    Attributes:
        name: what the user passes as --model, such as topopruned_llava.
        criterion: its name in plugin.toml; "dense" deletes nothing.
        wraps: id of the lmms-eval model it builds on.
        generation: "module:class" of a mixin that answers requests; None for the guarded loop of the
            wrapped class.
    """

    name: str
    criterion: str
    wraps: str
    generation: str | None = None


def declarations(path: Path | None = None) -> dict[str, Any]:
    """plugin.toml as a dictionary.

    Raises:
        InputError: it is not valid TOML, or a table is missing, incomplete or has an unknown key.
    """
    path = path or shared_path("plugin.toml")
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is not valid TOML: {error}") from None
    for table, keys in (("criteria", CRITERION_KEYS), ("families", FAMILY_KEYS)):
        if not data.get(table):
            raise InputError(f"{path} declares no {table}; allowed: at least one table [{table}.NAME]")
        for name, entry in data[table].items():
            _check_entry(f"{path}: [{table}.{name}]", entry, keys)
    return data


def _check_entry(where: str, entry: Any, keys: set[str]) -> None:
    if not isinstance(entry, dict) or ("wraps" in keys and not isinstance(entry.get("wraps"), str)):
        raise InputError(f"{where} lacks 'wraps', the id of an lmms-eval model")
    for key in entry:
        if key not in keys:
            raise InputError(f"{where} has {key!r}; allowed: {', '.join(sorted(keys))}{nearest(key, keys)}")


def registered(path: Path | None = None) -> dict[str, Registered]:
    """Every declared model by name: each criterion that has a prefix, for each family."""
    data = declarations(path)
    prefixes = {name: rule["prefix"] for name, rule in data["criteria"].items() if rule.get("prefix")}
    models: dict[str, Registered] = {}
    for family, wrapped in data["families"].items():
        for criterion, prefix in prefixes.items():
            name = f"{prefix}_{family}"
            if name in models:
                raise InputError(
                    f"plugin.toml declares the model {name!r} twice; give each criterion its own prefix"
                )
            models[name] = Registered(name, criterion, wrapped["wraps"], wrapped.get("generation"))
    return models


def manifests(path: Path | None = None) -> list[ModelManifest]:
    """What lmms-eval's entry point asks for, at every import of lmms_eval.models.

    Raises:
        InputError: plugin.toml is broken; lmms-eval logs the sentence and goes on without our models.
    """
    importlib.import_module("lmms_topoprune.harness.compat").note_evaluations()
    catalog = importlib.import_module("lmms_eval.models")
    known = {"simple": catalog.AVAILABLE_SIMPLE_MODELS, "chat": catalog.AVAILABLE_CHAT_TEMPLATE_MODELS}
    return [_manifest(model, known) for model in registered(path).values()]


def _manifest(model: Registered, known: dict[str, dict[str, str]]) -> ModelManifest:
    from lmms_eval.models.registry_v2 import ModelManifest

    kinds = [kind for kind in KINDS if model.wraps in known[kind]]
    if not kinds:
        raise InputError(
            f"plugin.toml: {model.name} wraps {model.wraps!r}, which lmms-eval does not have"
            f"{nearest(model.wraps, [*known['simple'], *known['chat']])}"
        )
    paths = {kind: f"{CLASSES}.{model.name}_{kind}" for kind in kinds}
    for kind, path in paths.items():
        # `lmms-eval models` lists these two tables and does not ask the registry.
        known[kind][model.name] = path
    return ModelManifest(model.name, paths.get("simple"), paths.get("chat"))
