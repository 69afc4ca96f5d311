"""Where plugin.toml and tasks/ are: at the top of a checkout, or packed into the installed wheel."""

from __future__ import annotations

import re
from pathlib import Path


def shared_path(name: str) -> Path:
    """The path of `plugin.toml` or `tasks`.

    Raises:
        FileNotFoundError: neither the wheel nor a checkout holds it (a broken installation).
    """
    package = Path(__file__).parents[1]
    for folder in (package / "_shared", package.parent):
        if (folder / name).exists():
            return folder / name
    raise FileNotFoundError(f"{name} is missing from {package}; reinstall lmms-topoprune")


def task_names() -> dict[str, str]:
    """Name of every embedded task or group -> "task" or "group"; read without importing lmms-eval."""
    found = {}
    for path in sorted(shared_path("tasks").rglob("*.yaml")):
        name = re.search(r"^(task|group):\s*[\"']?([\w-]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        if name and not path.name.startswith("_"):
            found[name[2]] = name[1]
    return found
