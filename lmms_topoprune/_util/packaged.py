"""Where what ships with this package is: plugin.toml, tasks/ and the embedded model.

plugin.toml and tasks/ are at the top of a checkout, or packed into the installed wheel.
"""

from __future__ import annotations

import re
from pathlib import Path

from lmms_topoprune.errors import InputError

PACKAGE = Path(__file__).parents[1]
EMBEDDED = "embedded"
"""What stands for the embedded model, tasks or calibration set."""


def shared_path(name: str) -> Path:
    """The path of `plugin.toml` or `tasks`.

    Raises:
        FileNotFoundError: neither the wheel nor a checkout holds it (a broken installation).
    """
    for folder in (PACKAGE / "_shared", PACKAGE.parent):
        if (folder / name).exists():
            return folder / name
    raise FileNotFoundError(f"{name} is missing from {PACKAGE}; reinstall lmms-topoprune")


def task_names() -> dict[str, str]:
    """Name of every embedded task or group -> "task" or "group"; read without importing lmms-eval."""
    found = {}
    for path in sorted(shared_path("tasks").rglob("*.yaml")):
        name = re.search(r"^(task|group):\s*[\"']?([\w-]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        if name and not path.name.startswith("_"):
            found[name[2]] = name[1]
    return found


def model_path() -> Path:
    """The folder of the trained model that ships with this package, for any from_pretrained.

    Raises:
        InputError: this installation does not hold it.
    """
    folder = PACKAGE / EMBEDDED / "model"
    if not (folder / "config.json").is_file():
        raise InputError(
            f"pretrained is {EMBEDDED!r}, and {folder} does not hold it; reinstall lmms-topoprune"
        )
    return folder


def tasks_path() -> Path:
    """The folder of the tasks that ship with this package, for lmms-eval's `include_path`.

    Raises:
        FileNotFoundError: this installation does not hold it.
    """
    return shared_path("tasks")
