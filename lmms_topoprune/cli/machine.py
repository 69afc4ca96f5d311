"""What a machine offers beyond the package itself: accelerator, hub, cache and optional packages."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata

OPTIONAL = {
    "decord": ("decord", "only videos need it: pip install decord (eva-decord on a Mac)"),
    "matplotlib": ("matplotlib", "only plots of barcodes need it: pip install '.[plots]'"),
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
    from lmms_topoprune._util.cache import VARIABLE, default_folder

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
