"""What `import lmms_topoprune` offers: lazily, typed, documented, at work in docs/python.md and README."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lmms_topoprune

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "python.md"
PAGES = [
    ROOT / "README.md",
    *(page for page in (ROOT / "docs").glob("*.md") if page.stem != "topology"),
]  # that is of one room


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", lmms_topoprune.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(lmms_topoprune, name)
    assert inspect.getdoc(value)
    assert f"`{name}`" in PAGE.read_text(encoding="utf-8")
    imports = re.findall(r"from lmms_topoprune import (.+)", "\n".join(b for p in PAGES for b in blocks(p)))
    assert name in ", ".join(imports).split(", ")  # in an example
    if inspect.isfunction(value):
        assert value.__annotations__.keys() >= set(inspect.signature(value).parameters) - {"self"}
        assert "return" in value.__annotations__


def test_a_name_that_is_not_public_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'prune'"):
        _ = lmms_topoprune.prune
    assert set(lmms_topoprune.__all__) <= set(dir(lmms_topoprune))


def test_the_import_is_quick_and_loads_nothing() -> None:
    """In processor time, which a busy machine does not change."""
    code = (
        "import sys, time; before = set(sys.modules); start = time.process_time(); import lmms_topoprune\n"
        "print(time.process_time() - start)\n"
        "print(sorted({'torch', 'numpy', 'transformers', 'lmms_eval', 'click'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, loaded = done.stdout.splitlines()
    assert float(seconds) < 0.2 and loaded == "[]"


OTHERS = (
    *("PIL", "accelerate", "av", "click", "datasets", "filelock", "gudhi", "huggingface_hub", "jinja2"),
    *("lmms_eval", "numba", "numpy", "platformdirs", "pydantic", "rich", "safetensors", "scipy"),
    *("torch", "tqdm", "transformers", "yaml"),
)
"""Libraries whose own names a user's file does not depend on: reading them takes most of the time."""


def test_type_checkers_see_the_names(tmp_path: Path) -> None:
    api = pytest.importorskip("mypy.api")
    assert (Path(lmms_topoprune.__file__).parent / "py.typed").exists()
    file = tmp_path / "user.py"
    file.write_text(
        "from lmms_topoprune import PruningOptions, make_plan, zigzag_barcode\n"
        "reveal_type(PruningOptions(sparsity=0.3).drop_count(10))\n"
        "PruningOptions(samples='many')\n"
    )
    heavy = "".join(f"[mypy-{name}.*]\nfollow_imports = skip\n" for name in OTHERS)
    settings = tmp_path / "mypy.ini"
    settings.write_text(f"[mypy]\nfollow_imports = silent\nignore_missing_imports = True\n{heavy}")
    out, _, _ = api.run(["--config-file", str(settings), "--cache-dir", str(tmp_path), str(file)])
    assert 'Revealed type is "int"' in out or 'Revealed type is "builtins.int"' in out
    assert 'Argument "samples"' in out and "has no attribute" not in out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_use_public_names_alone(page: Path) -> None:
    for block in blocks(page):
        for module, names in re.findall(r"from (lmms_topoprune[\w.]*) import (.+)", block):
            assert module == "lmms_topoprune"
            assert {name.strip() for name in names.split(",")} <= set(lmms_topoprune.__all__)
