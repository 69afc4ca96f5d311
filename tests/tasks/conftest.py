"""The tasks' folder, its hooks as a module, and its rows."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lmms_topoprune._util.packaged import shared_path


@pytest.fixture(scope="session")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("topoprune_hooks", shared_path("tasks") / "hooks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def rows() -> Callable[[str], list[dict[str, Any]]]:
    def read(task: str) -> list[dict[str, Any]]:
        text = (Path(shared_path("tasks")) / "data" / f"{task}.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]

    return read
