"""Where the embedded model and tasks are."""

from __future__ import annotations

from pathlib import Path

from lmms_topoprune._util.packaged import shared_path
from lmms_topoprune.errors import InputError

NAME = "embedded"


def model_path() -> Path:
    """The folder of the trained model that ships with this package, for any from_pretrained.

    Raises:
        InputError: this installation does not hold it.
    """
    folder = Path(__file__).parent / "model"
    if not (folder / "config.json").is_file():
        raise InputError(f"pretrained is {NAME!r}, and {folder} does not hold it; reinstall lmms-topoprune")
    return folder


def tasks_path() -> Path:
    """The folder of the tasks that ship with this package, for lmms-eval's `include_path`.

    Raises:
        FileNotFoundError: this installation does not hold it.
    """
    return shared_path("tasks")
