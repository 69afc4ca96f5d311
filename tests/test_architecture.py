"""Imports go one way, heavy ones stay out of the borders, and the rooms keep to their subjects."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import lmms_topoprune

PACKAGE = Path(lmms_topoprune.__file__).parent

# A room may import itself, the rooms named here, and the small modules at the top of the package.
MAY_IMPORT = {
    "topology": set(),
    "surgery": set(),
    "embedded": {"calibration"},
    "calibration": {"surgery", "embedded"},
    "criteria": {"topology", "calibration", "surgery"},
    "harness": {"calibration", "criteria", "surgery", "topology", "embedded", "comparison"},
    "comparison": {"calibration", "criteria", "surgery", "topology", "embedded", "harness"},
    "cli": {"calibration", "criteria", "surgery", "topology", "embedded", "harness", "comparison"},
}
ONLY_ROOM = {"lmms_eval": {"harness"}, "click": {"cli"}}
NO_TORCH = (
    "lmms_topoprune",
    "lmms_topoprune.registration",
    "lmms_topoprune.cli.main",
    "lmms_topoprune.options",
)


def modules() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py") if "_shared" not in p.parts)


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def room_of(path: Path) -> str | None:
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else None


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    room = room_of(path)
    rooms = {n.split(".")[1] for n in imported(path) if n.startswith("lmms_topoprune.")} & set(MAY_IMPORT)
    if room is None:
        allowed = set(MAY_IMPORT) - {"cli", "harness", "comparison"}
    else:
        allowed = MAY_IMPORT[room] | {room}
    assert rooms <= allowed, f"{path} imports {rooms - allowed}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_library_is_used_in_its_room_only(path: Path) -> None:
    for library, owners in ONLY_ROOM.items():
        uses = any(n == library or n.startswith(f"{library}.") for n in imported(path))
        is_registration = path.name == "registration.py" and library == "lmms_eval"
        assert not uses or room_of(path) in owners or is_registration


@pytest.mark.parametrize("module", NO_TORCH)
def test_the_borders_do_not_import_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_file_stays_small() -> None:
    long = {p.name: n for p in modules() if (n := len(p.read_text().splitlines())) > 400}
    assert not long
