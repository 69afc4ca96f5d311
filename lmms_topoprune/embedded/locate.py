"""Where the embedded model is."""

from __future__ import annotations

from pathlib import Path

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
