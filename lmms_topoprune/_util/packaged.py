"""Where plugin.toml and tasks/ are: at the top of a checkout, or packed into the installed wheel."""

from __future__ import annotations

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
