"""What works on this machine, and how to mend what does not."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import metadata

from lmms_topoprune.errors import TopopruneError, led_to

PACKAGE = "lmms-topoprune"
FALLBACK = ("lmms-eval", "torch", "torchvision", "transformers", "gudhi", "numba", "numpy", "scipy")
"""What is looked for where the package is not installed and names no requirements."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: its name.
        works: whether it does.
        needed: whether the package is of no use without it.
        detail: version, place or reason.
        mend: what to do if it does not work.
    """

    what: str
    works: bool
    needed: bool
    detail: str
    mend: str = ""


def examine() -> Iterator[Finding]:
    """Look at everything, one finding at a time; nothing here raises."""
    from lmms_topoprune.cli import surroundings

    yield _python()
    yield from map(_package, _requirements())
    for look in (_declarations, _entry_point, _registered, _embedded_model, _tasks, _calibration):
        yield _guarded(look)
    try:
        families = list(_wrapped_models())
    except Exception as error:
        families = [Finding("families", False, True, _reason(error), "repair plugin.toml")]
    # One family is enough to be of use.
    none_usable = not any(family.works for family in families)
    yield from (replace(family, needed=none_usable) for family in families)
    for look in (surroundings.accelerator, surroundings.hub, surroundings.cache):
        yield _guarded(look, needed=False)
    yield from surroundings.optional_packages()


def _guarded(look: Callable[[], Finding], needed: bool = True) -> Finding:
    try:
        return look()
    except Exception as error:
        what = look.__name__.strip("_").replace("_", " ")
        return Finding(what, False, needed, _reason(error), f"pip install --force-reinstall {PACKAGE}")


def _reason(error: Exception) -> str:
    reason = str(error) if isinstance(error, TopopruneError) else f"{type(error).__name__}: {error}"
    return " ".join(reason.split())


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("Python", sys.version_info >= (3, 10), True, version, "use Python 3.10 or newer")


def _requirements() -> list[str]:
    """What the package says it needs here, such as "torch>=2.6"; markers are heeded, extras left out."""
    from packaging.requirements import Requirement

    try:
        declared = [Requirement(text) for text in metadata.requires(PACKAGE) or ()]
    except metadata.PackageNotFoundError:
        return list(FALLBACK)
    here = [r for r in declared if r.marker is None or r.marker.evaluate({"extra": ""})]
    return [f"{r.name}{r.specifier}" for r in here]


def _package(wanted: str) -> Finding:
    from packaging.requirements import Requirement

    requirement = Requirement(wanted)
    mend = f"pip install '{wanted}'"
    try:
        found = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return Finding(requirement.name, False, True, "not installed", mend)
    if not requirement.specifier.contains(found, prereleases=True):
        detail = f"{found}, but {requirement.specifier} is needed"
        return Finding(requirement.name, False, True, detail, mend)
    return Finding(requirement.name, True, True, found)


def _declarations() -> Finding:
    from lmms_topoprune.families import registered

    return Finding("plugin.toml", True, True, f"declares {len(registered())} models")


def _entry_point() -> Finding:
    found = [e for e in metadata.entry_points(group="lmms_eval.models") if "topoprune" in e.value]
    detail = found[0].value if found else "absent: the package is importable but not installed"
    return Finding(
        "entry point", bool(found), True, detail, "pip install lmms-topoprune (or pip install -e .)"
    )


def _registered() -> Finding:
    """lmms-eval loads all plugins in one go and only logs what goes wrong, so ask it for our models."""
    from lmms_topoprune.families import registered
    from lmms_topoprune.harness.listing import known_models

    missing = sorted(set(registered()) - known_models())
    detail = f"missing: {', '.join(missing)}" if missing else "all models are listed by `lmms-eval models`"
    others = ", ".join(
        sorted({e.name for e in metadata.entry_points(group="lmms_eval.models")} - {"topoprune"})
    )
    mend = (
        f"a broken plugin hides all others; uninstall them one by one: {others}"
        if others
        else "reinstall lmms-topoprune"
    )
    return Finding("registered with lmms-eval", not missing, True, detail, mend)


def _embedded_model() -> Finding:
    from lmms_topoprune.embedded.locate import model_path

    return Finding("embedded model", True, True, str(model_path()))


def _tasks() -> Finding:
    from lmms_topoprune._util.packaged import shared_path
    from lmms_topoprune.cli.tasks import tasks

    found = tasks()
    return Finding("embedded tasks", bool(found), True, f"{', '.join(found)} in {shared_path('tasks')}")


def _calibration() -> Finding:
    from lmms_topoprune.calibration.sources import load_samples

    count = len(load_samples("embedded", 8, 0))
    return Finding("embedded calibration set", count == 8, True, "readable")


def _wrapped_models() -> Iterator[Finding]:
    from lmms_topoprune.families import declarations

    for family, entry in declarations()["families"].items():
        what = f"family {family} (wraps {entry['wraps']})"
        try:
            module = importlib.import_module("lmms_topoprune.harness.classes")
            kinds = [kind for kind in ("chat", "simple") if hasattr(module, f"dense_{family}_{kind}")]
            detail = f"usable here ({' and '.join(kinds)} prompts)" if kinds else "cannot be built"
            yield Finding(what, bool(kinds), True, detail, f"pip install --force-reinstall {PACKAGE}")
        except Exception as error:
            yield Finding(what, False, True, _reason(error), _what_is_missing(error))


def _what_is_missing(failure: BaseException) -> str:
    """How to get the module that an import failed for."""
    for error in led_to(failure):
        if isinstance(error, ImportError) and error.name and error.name.partition(".")[0] != "lmms_topoprune":
            return f"pip install {error.name.partition('.')[0].replace('_', '-')}"
    return "install what it asks for"
