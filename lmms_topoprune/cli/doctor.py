"""`topoprune doctor`: what works on this machine, and how to mend what does not."""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from importlib import metadata

import click

from lmms_topoprune.cli import shared
from lmms_topoprune.errors import led_to, reason_of

OPTIONAL = {
    "matplotlib": ("matplotlib", "only figures need it: pip install '.[plots]'"),
    "ray": ("ray", "only sweeps on a cluster need it: pip install '.[ray]'"),
    "datasets": ("datasets", "only calibration sets from a hub need it: pip install datasets"),
}
PATIENCE = 3.0
"""Seconds to wait for the hub, name resolution and a proxy that swallows packets included."""


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


def accelerator() -> Finding:
    """The first GPU, or why there is none."""
    import torch

    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 1e9
        detail = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}, {memory:.0f} GB"
        return Finding("accelerator", True, False, detail)
    if torch.backends.mps.is_available():
        return Finding("accelerator", True, False, "Apple GPU (mps)")
    detail = f"none; {torch.get_num_threads()} CPU threads"
    mend = "the embedded model runs without one; large models need a GPU"
    if shutil.which("nvidia-smi"):
        detail = f"none that torch {torch.__version__} can use, though an NVIDIA driver is here"
        mend = "install a build of torch for your driver: https://pytorch.org/get-started/locally"
    return Finding("accelerator", False, False, detail, mend)


def hub() -> Finding:
    """Whether the hub answers within PATIENCE seconds."""
    from huggingface_hub import constants

    name, mend = "Hugging Face hub", "without it use pretrained=embedded or a local folder"
    if constants.HF_HUB_OFFLINE:
        return Finding(name, False, False, "switched off by HF_HUB_OFFLINE", f"unset HF_HUB_OFFLINE; {mend}")
    answer: list[str] = []
    # Name resolution knows no time limit, so the wait is limited from outside.
    thread = threading.Thread(target=lambda: answer.append(_ask(constants.ENDPOINT)), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    trouble = answer[0] if answer else f"no answer within {PATIENCE:g} s"
    if not trouble:
        return Finding(name, True, False, constants.ENDPOINT)
    return Finding(name, False, False, f"{constants.ENDPOINT} cannot be reached: {trouble}", mend)


def _ask(address: str) -> str:
    """What stands in the way of an answer; nothing if any comes."""
    import urllib.error
    import urllib.request

    try:
        urllib.request.urlopen(address, timeout=PATIENCE).close()
    except urllib.error.HTTPError:
        return ""
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))
    return ""


def cache() -> Finding:
    """Whether scores can be kept between runs."""
    from lmms_topoprune._util.disk_cache import VARIABLE, default_folder

    folder = default_folder()
    if folder is None:
        return Finding("score cache", False, False, f"switched off by {VARIABLE}", f"unset {VARIABLE}")
    mend = f"set {VARIABLE} to a folder that can be written; without it every plan calibrates anew"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"1")
    except OSError as error:
        return Finding("score cache", False, False, f"{folder} cannot be written: {error.strerror}", mend)
    return Finding("score cache", True, False, str(folder))


def optional_packages() -> Iterator[Finding]:
    for name, (module, mend) in OPTIONAL.items():
        if importlib.util.find_spec(module) is None:
            yield Finding(name, False, False, "not installed", mend)
            continue
        try:
            yield Finding(name, True, False, metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Finding(name, True, False, "installed")


PACKAGE = "lmms-topoprune"
INSTALL = "pip install ."
"""README's line, in a clone."""
FALLBACK = ("lmms-eval", "torch", "torchvision", "transformers", "gudhi", "numba", "numpy", "scipy")
"""What is looked for where the package is not installed and names no requirements."""


@click.command()
@shared.as_json
def command(as_json: bool) -> int:
    """Say what works on this machine and how to mend what does not.

    Looks at versions, the registration with lmms-eval, the wrapped models, the embedded model and tasks,
    an accelerator, the hub and optional packages. The exit code is 1 if anything that is needed fails;
    what is optional is only told.
    """
    findings = []
    with _without_warnings():
        for finding in examine():
            findings.append(finding)
            if not as_json:
                _show(finding)
    healthy = all(finding.works for finding in findings if finding.needed)
    if as_json:
        click.echo(json.dumps({"healthy": healthy, "findings": [asdict(f) for f in findings]}))
    return 0 if healthy else 1


@contextmanager
def _without_warnings() -> Iterator[None]:
    """What libraries warn of while they are imported would stand between the findings."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    _lmms_eval_speaks(False)
    try:
        yield
    finally:
        logging.disable(before)
        _lmms_eval_speaks(True)


def _lmms_eval_speaks(aloud: bool) -> None:
    """Switch its loguru messages, which may go to standard output."""
    with suppress(ImportError):  # it comes with lmms-eval, which may be what is missing
        from loguru import logger

        (logger.enable if aloud else logger.disable)("lmms_eval")


def _show(finding: Finding) -> None:
    mark = "ok  " if finding.works else "FAIL" if finding.needed else "  - "
    click.echo(f"{mark} {finding.what}: {finding.detail}")
    if not finding.works and finding.mend:
        click.echo(f"       {finding.mend}")


def examine() -> Iterator[Finding]:
    """Look at everything, one finding at a time; nothing here raises."""
    yield _python()
    yield from map(_package, _requirements())
    for look in (_declarations, _entry_point, _registered, _embedded_model, _tasks, _calibration):
        yield _guarded(look)
    try:
        families = list(_wrapped_models())
    except Exception as error:
        families = [Finding("families", False, True, reason_of(error), "repair plugin.toml")]
    # One family is enough to be of use.
    none_usable = not any(family.works for family in families)
    yield from (replace(family, needed=none_usable) for family in families)
    try:
        yield from _of_others()
    except Exception as error:
        yield Finding(
            "declared elsewhere", False, False, reason_of(error), "topoprune doctor --json tells more"
        )
    for look in (accelerator, hub, cache):
        yield _guarded(look, needed=False)
    yield from optional_packages()


def _guarded(look: Callable[[], Finding], needed: bool = True) -> Finding:
    try:
        return look()
    except Exception as error:
        what = look.__name__.strip("_").replace("_", " ")
        return Finding(what, False, needed, reason_of(error), f"{INSTALL} --force-reinstall")


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
    from lmms_topoprune.families import listed

    return Finding("plugin.toml", True, True, f"declares {len(listed())} models")


def _of_others() -> Iterator[Finding]:
    """What other packages and files declare, where it cannot be used."""
    from lmms_topoprune import families, registry
    from lmms_topoprune.harness.listing import unwrapped_families

    broken = [*registry.problems(registry.Criterion), *registry.problems(registry.Repair)]
    for number, sentence in enumerate([*broken, *families.problems(), *unwrapped_families()], 1):
        mend = "mend or remove the package or file that declares it"
        yield Finding(f"declared elsewhere ({number})", False, False, sentence, mend)


def _entry_point() -> Finding:
    found = [e for e in metadata.entry_points(group="lmms_eval.models") if "topoprune" in e.value]
    detail = found[0].value if found else "absent: the package is importable but not installed"
    return Finding("entry point", bool(found), True, detail, INSTALL)


def _registered() -> Finding:
    """lmms-eval loads all plugins in one go and only logs what goes wrong, so ask it for our models."""
    from lmms_topoprune.families import registered
    from lmms_topoprune.harness.listing import known_models

    known = known_models()
    missing = sorted(m.name for m in registered().values() if m.wraps in known and m.name not in known)
    detail = f"missing: {', '.join(missing)}" if missing else "lmms-eval knows all models"
    others = ", ".join(
        sorted({e.name for e in metadata.entry_points(group="lmms_eval.models")} - {"topoprune"})
    )
    mend = (
        f"a broken plugin hides all others; uninstall them one by one: {others}"
        if others
        else f"{INSTALL} --force-reinstall"
    )
    return Finding("registered with lmms-eval", not missing, True, detail, mend)


def _embedded_model() -> Finding:
    from lmms_topoprune._util.packaged import model_path

    return Finding("embedded model", True, True, str(model_path()))


def _tasks() -> Finding:
    from lmms_topoprune._util.packaged import shared_path, task_names

    found = task_names()
    return Finding("embedded tasks", bool(found), True, f"{', '.join(found)} in {shared_path('tasks')}")


def _calibration() -> Finding:
    from lmms_topoprune.calibration.sources import load_samples

    count = len(load_samples("embedded", 8, 0))
    return Finding("embedded calibration set", count == 8, True, "readable")


def _wrapped_models() -> Iterator[Finding]:
    from lmms_topoprune.families import families
    from lmms_topoprune.harness.listing import prompts_of

    for family, declared in families().items():
        what = f"family {family} (wraps {declared.wraps})"
        try:
            module = importlib.import_module("lmms_topoprune.harness.classes")
            kinds = [kind for kind in prompts_of(declared.wraps) if hasattr(module, f"dense_{family}_{kind}")]
            detail = f"usable here ({' and '.join(kinds)} prompts)" if kinds else "cannot be built"
            yield Finding(what, bool(kinds), True, detail, f"{INSTALL} --force-reinstall")
        except Exception as error:
            yield Finding(what, False, True, reason_of(error), _what_is_missing(error))


def _what_is_missing(failure: BaseException) -> str:
    """How to get the module that an import failed for."""
    for error in led_to(failure):
        if isinstance(error, ImportError) and error.name and error.name.partition(".")[0] != "lmms_topoprune":
            return f"pip install {error.name.partition('.')[0].replace('_', '-')}"
    return "install what it asks for"
