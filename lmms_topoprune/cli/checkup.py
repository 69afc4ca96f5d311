"""What works on this machine, and how to mend what does not."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import metadata

from lmms_topoprune.errors import TopopruneError

NEEDED = ("lmms-eval", "torch", "torchvision", "transformers", "gudhi", "numba", "numpy", "scipy")
OPTIONAL = {
    "decord": "only videos need it: pip install decord (eva-decord on a Mac)",
    "matplotlib": "plots of barcodes: pip install 'lmms-topoprune[plots]'",
}


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
    yield _python()
    for package in NEEDED:
        yield _package(package)
    for look in (_declarations, _entry_point, _registered, _embedded_model, _tasks, _calibration):
        yield _guarded(look)
    families = list(_wrapped_models())
    # One family is enough to be of use.
    none_usable = not any(family.works for family in families)
    yield from (replace(family, needed=none_usable) for family in families)
    yield _guarded(_accelerator)
    yield _guarded(_hub)
    for package, mend in OPTIONAL.items():
        there = importlib.util.find_spec(package) is not None
        yield Finding(package, there, False, "installed" if there else "not installed", mend)


def _guarded(look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except Exception as error:
        what = look.__name__.strip("_").replace("_", " ")
        reason = str(error) if isinstance(error, TopopruneError) else f"{type(error).__name__}: {error}"
        return Finding(
            what, False, True, " ".join(reason.split()), "pip install --force-reinstall lmms-topoprune"
        )


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("Python", sys.version_info >= (3, 10), True, version, "use Python 3.10 or newer")


def _package(name: str) -> Finding:
    try:
        return Finding(name, True, True, metadata.version(name))
    except metadata.PackageNotFoundError:
        return Finding(name, False, True, "not installed", f"pip install {name}")


def _declarations() -> Finding:
    from lmms_topoprune.registration import registered

    return Finding("plugin.toml", True, True, f"declares {len(registered())} models")


def _entry_point() -> Finding:
    found = [e for e in metadata.entry_points(group="lmms_eval.models") if "topoprune" in e.value]
    detail = found[0].value if found else "absent: the package is importable but not installed"
    return Finding(
        "entry point", bool(found), True, detail, "pip install lmms-topoprune (or pip install -e .)"
    )


def _registered() -> Finding:
    """lmms-eval loads all plugins in one go and only logs what goes wrong, so ask it for our models."""
    from lmms_topoprune.harness.listing import known_models
    from lmms_topoprune.registration import registered

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
    from lmms_topoprune.cli.tasks import tasks
    from lmms_topoprune.shared_files import shared_path

    found = tasks()
    return Finding("embedded tasks", bool(found), True, f"{', '.join(found)} in {shared_path('tasks')}")


def _calibration() -> Finding:
    from lmms_topoprune.calibration.sources import load_samples

    count = len(load_samples("embedded", 8, 0))
    return Finding("embedded calibration set", count == 8, True, "readable")


def _wrapped_models() -> Iterator[Finding]:
    from lmms_topoprune.registration import declarations

    for family, entry in declarations()["families"].items():
        what = f"family {family} (wraps {entry['wraps']})"
        try:
            module = importlib.import_module("lmms_topoprune.harness.models")
            name = f"dense_{family}"
            usable = any(hasattr(module, f"{name}_{kind}") for kind in ("chat", "simple"))
            yield Finding(what, usable, True, "usable here" if usable else "cannot be built")
        except Exception as error:
            yield Finding(what, False, False, " ".join(str(error).split()), "install what it asks for")


def _accelerator() -> Finding:
    import torch

    if torch.cuda.is_available():
        return Finding("accelerator", True, False, torch.cuda.get_device_name(0))
    if torch.backends.mps.is_available():
        return Finding("accelerator", True, False, "Apple GPU (mps)")
    mend = "for large models install a build of torch for your GPU"
    return Finding("accelerator", False, False, f"none; {torch.get_num_threads()} CPU threads", mend)


def _hub() -> Finding:
    import urllib.error
    import urllib.request

    from huggingface_hub import constants

    mend = "without it use pretrained=embedded or a local folder"
    if constants.HF_HUB_OFFLINE:
        return Finding("Hugging Face hub", False, False, "switched off by HF_HUB_OFFLINE", mend)
    try:
        urllib.request.urlopen(constants.ENDPOINT, timeout=5).close()
    except urllib.error.HTTPError:
        return Finding("Hugging Face hub", True, False, constants.ENDPOINT)
    except OSError as error:
        reason = getattr(error, "reason", error)
        return Finding(
            "Hugging Face hub", False, False, f"{constants.ENDPOINT} cannot be reached: {reason}", mend
        )
    return Finding("Hugging Face hub", True, False, constants.ENDPOINT)
