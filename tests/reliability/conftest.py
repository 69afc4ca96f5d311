"""A tiny model folder and an empty folder for each trial."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from scene import Scene, save_model


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def scene(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Scene]:
    """scene(seed): what varies is drawn by the seed. No network is looked for."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return lambda seed: Scene(tiny_folder, tmp_path, random.Random(seed))
