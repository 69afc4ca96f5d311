"""A tiny LLaVA folder and a task folder for the command line's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lmms_topoprune.cli.main import main


@pytest.fixture
def topoprune(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs the command line in this process: topoprune("tasks") -> (exit code, stdout, stderr)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return int(end.value.code or 0), out, err

    return call


@pytest.fixture(scope="session")
def model_folder(tiny_llava, embedded_processor, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_llava(layers=6).save_pretrained(folder)
    embedded_processor.save_pretrained(folder)
    return folder
