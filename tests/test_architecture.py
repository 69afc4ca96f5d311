"""Imports go one way between rooms, no circle anywhere, and heavy libraries stay out of the borders."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import lmms_topoprune

PACKAGE = Path(lmms_topoprune.__file__).parent
NAME = PACKAGE.name

BASE = {"errors", "_util"}
DATA = {*BASE, "selection", "plan", "registry", "options", "heal_options"}
SCIENCE = {*DATA, "surgery", "calibration"}
# A room is a folder, or a module at the top. Each may import itself and these, lazily or not; whatever a room
# may not import has no arrow in docs or below.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "_util": {"errors"},
    "compat": BASE,
    "selection": BASE,
    "plan": BASE,
    "registry": {*BASE, "selection"},
    "families": {*BASE, "registry"},
    "heal_options": BASE,
    "options": {*BASE, "plan", "registry", "heal_options"},
    "topology": {*BASE, "selection"},
    "surgery": {*BASE, "compat", "plan", "registry"},
    "embedded": BASE,
    "calibration": {*DATA, "compat", "surgery", "embedded"},
    "criteria": {*SCIENCE, "topology"},
    "repair": SCIENCE,
    "heal": SCIENCE,
    "pipeline": {*SCIENCE, "criteria", "repair", "heal"},
    "harness": {*SCIENCE, "compat", "repair", "pipeline", "families"},
    "results": {*DATA, "families", "topology"},
    "comparison": {*DATA, "results"},
    "report": {*DATA, "results", "comparison", "topology"},
    "sweep": {*SCIENCE, "pipeline", "families", "harness", "results"},
}
MAY_IMPORT["cli"] = set(MAY_IMPORT)
MAY_IMPORT["__init__"] = set(MAY_IMPORT)  # the public names, each imported when it is asked for
ONLY_ROOM = {"lmms_eval": {"harness", "compat"}, "click": {"cli"}, "ray": {"sweep"}, "peft": {"heal"}}
NO_TORCH = (
    "",
    ".registry",
    ".families",
    ".options",
    ".plan",
    ".cli.main",
    ".cli.shared",
    ".harness.manifests",
    ".criteria.taylor",
    ".criteria.topology_angle_influence",
)


@cache
def modules() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py") if "_shared" not in p.parts)


@cache
def dotted(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    """The second part of a dotted name; the package itself is the room of its public names."""
    return module.split(".")[1] if "." in module else "__init__"


def statements(tree: ast.AST, typing: bool) -> Iterator[ast.AST]:
    """All nodes, those under `if TYPE_CHECKING:` only if asked for."""
    for node in ast.iter_child_nodes(tree):
        if not typing and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node
        yield from statements(node, typing)


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imported(path: Path, typing: bool = True) -> frozenset[str]:
    """Dotted names that a file imports anywhere: modules, and whatever is taken from them."""
    names = set()
    for node in statements(parsed(path), typing):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import, whose room is not told by its name"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(names)


def modules_imported(path: Path, typing: bool = True) -> set[str]:
    """This package's modules among them; a name that is no module belongs to the one it is taken from."""
    known = {dotted(p) for p in modules()}
    ours = (n for n in imported(path, typing) if n.split(".")[0] == NAME)
    return {n if n in known else n.rpartition(".")[0] for n in ours}


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The circles that a walk in depth meets first, none if there is none."""
    found: list[list[str]] = []
    done: set[str] = set()

    def walk(module: str, way: list[str]) -> None:
        if module in way:
            found.append([*way[way.index(module) :], module])
        elif module not in done:
            for following in sorted(graph.get(module, ())):
                walk(following, [*way, module])
            done.add(module)

    for module in sorted(graph):
        walk(module, [])
    return found


def ids(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", modules(), ids=ids)
def test_imports_go_one_way(path: Path) -> None:
    room = room_of(dotted(path))
    assert room in MAY_IMPORT, f"say in MAY_IMPORT what {room} may import"
    rooms = {room_of(module) for module in modules_imported(path)} - {room}
    assert rooms <= MAY_IMPORT[room], f"{ids(path)} imports {rooms - MAY_IMPORT[room]}"


def test_every_arrow_between_rooms_is_used() -> None:
    """One that nobody needs any more would let the next import in unseen."""
    used = {
        (room_of(dotted(path)), room_of(module)) for path in modules() for module in modules_imported(path)
    }
    arrows = {(room, other) for room, others in MAY_IMPORT.items() for other in others - DATA}
    assert {arrow for arrow in arrows - used if arrow[0] not in ("cli", "__init__")} == set()


def test_the_arrows_themselves_have_no_circle() -> None:
    top = ("cli", "__init__")  # they may import whatever there is
    assert circles({room: others - {room} for room, others in MAY_IMPORT.items() if room not in top}) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Imports inside functions count; those for annotations alone do not."""
    graph = {dotted(path): modules_imported(path, typing=False) - {dotted(path)} for path in modules()}
    assert [" -> ".join(circle) for circle in circles(graph)] == []


def test_a_circle_would_be_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == [["b", "c", "b"]]


@pytest.mark.parametrize("path", modules(), ids=ids)
def test_a_library_is_used_in_its_room_only(path: Path) -> None:
    for library, owners in ONLY_ROOM.items():
        uses = any(n.split(".")[0] == library for n in imported(path))
        assert not uses or room_of(dotted(path)) in owners, f"{ids(path)} imports {library}"


@pytest.mark.parametrize("path", modules(), ids=ids)
def test_mocks_are_for_tests(path: Path) -> None:
    assert not any(n.startswith("unittest") for n in imported(path))


def test_the_borders_do_not_import_torch() -> None:
    """One after the other in one process, which prints the first that does."""
    code = "import sys, importlib\nfor name in sys.argv[1:]:\n    importlib.import_module(name)\n"
    code += "    if 'torch' in sys.modules: sys.exit(name)\n"
    command = [sys.executable, "-c", code, *(NAME + module for module in NO_TORCH)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_file_stays_small() -> None:
    long = {p.name: n for p in modules() if (n := len(p.read_text().splitlines())) > 400}
    assert not long


def test_numpy_tests_import_no_torch() -> None:
    """The tests of selection take half a second of processor time, not ten."""
    code = "import sys, conftest; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    here = Path(__file__).parent
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=here).returncode == 0


def functions(node: ast.AST, outer: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """Public functions and methods below a node, with the docstring of their class."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            yield from functions(child, ast.get_docstring(child) or "")
        elif isinstance(child, ast.FunctionDef) and (child.name == "__init__" or child.name[0] != "_"):
            yield outer, child


def raised(node: ast.AST) -> Iterator[str]:
    """Names of what a function itself raises; what functions inside it raise is theirs."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Raise) and isinstance(child.exc, ast.Call):
            yield ast.unparse(child.exc.func)
        elif not isinstance(child, ast.FunctionDef | ast.Lambda):
            yield from raised(child)


@pytest.mark.parametrize("path", modules(), ids=ids)
def test_a_docstring_says_what_is_raised(path: Path) -> None:
    """A command's docstring is its help, where errors explain themselves."""
    silent = [
        function.name
        for outer, function in functions(parsed(path))
        if "Raises:" not in outer + (ast.get_docstring(function) or "")
        and room_of(dotted(path)) != "cli"
        and any(name.endswith("Error") or name == "unknown" for name in raised(function))
    ]
    assert silent == []


SETTINGS = {"ImageFile.LOAD_TRUNCATED_IMAGES", "torch.backends.cuda.matmul.allow_tf32"}
"""What other libraries document as theirs to be set."""


def patched(path: Path) -> Iterator[str]:
    """Attributes of what a file imports from other libraries that it sets, in whichever way."""
    foreign = {
        alias.asname or alias.name.split(".")[0]
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
        if (getattr(node, "module", None) or alias.name).split(".")[0] not in {NAME, *sys.stdlib_module_names}
    }
    for node in ast.walk(parsed(path)):
        setting = isinstance(node, ast.Call) and ast.unparse(node.func) in ("setattr", "delattr", "replaced")
        if setting and ast.unparse(node.args[0]).split(".")[0] in foreign:
            yield ast.unparse(node)
        targets = node.targets if isinstance(node, ast.Assign | ast.Delete) else ()
        for target in [node.target] if isinstance(node, ast.AugAssign | ast.AnnAssign) else targets:
            text = ast.unparse(target)
            if isinstance(target, ast.Attribute) and (text.split(".")[0] in foreign or "__class__" in text):
                yield text


@pytest.mark.parametrize("path", modules(), ids=ids)
def test_other_libraries_are_patched_in_compat_only(path: Path) -> None:
    assert room_of(dotted(path)) == "compat" or {*patched(path)} <= SETTINGS


def test_a_patch_would_be_found() -> None:
    found = [*patched(PACKAGE / "compat" / "evaluation.py")]
    assert "ResponseCache.execute" in found and "replaced(logger, add=add_sink)" in found
