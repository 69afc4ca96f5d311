"""Where a fault is tried: a model folder, an empty folder, and the ways a user comes in."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import random
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from transformers import LlavaProcessor

from lmms_topoprune._util.packaged import model_path
from lmms_topoprune.errors import TopopruneError
from lmms_topoprune.plan import PruningPlan
from lmms_topoprune.surgery import fingerprint

sys.path.append(str(Path(__file__).parents[2]))

from training.embedded import build

LAYERS = 6
SIZE = build.Size(layers=LAYERS, width=32, mlp=64, heads=4, vision_layers=1, vision_width=32)


def save_model(folder: Path, **saving: Any) -> Path:
    """A random LLaVA of 6 layers and a plan for it, plan.json."""
    processor = LlavaProcessor.from_pretrained(model_path())
    model = build.build_model(processor, SIZE, 0).eval()
    model.save_pretrained(folder, **saving)
    processor.save_pretrained(folder)
    PruningPlan("tiny", fingerprint(model), LAYERS, (2, 3), "given").save(folder / "plan.json")
    return folder


@dataclass(frozen=True)
class Scene:
    """One trial.

    Attributes:
        model: a sound model folder, not to be written to.
        folder: empty, the trial's own.
        rng: what varies from trial to trial.
    """

    model: Path
    folder: Path
    rng: random.Random

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    def copy(self) -> Path:
        """A model folder that may be broken."""
        return Path(shutil.copytree(self.model, self.folder / "model"))

    def create(self, model_args: str, name: str = "topopruned_llava", cache: Path | None = None) -> Any:
        """The model object, as lmms-eval makes it."""
        from lmms_eval import models

        with patch.dict(os.environ, {"TOPOPRUNE_CACHE": str(cache or self.cache)}):
            given = {"batch_size": 1, "max_batch_size": None, "device": None}
            return models.get_model(name).create_from_arg_string(model_args, given)

    def command(self, *arguments: object) -> tuple[int, str]:
        """Exit code and last line on standard error of a `topoprune` command; a traceback is a failure."""
        from lmms_topoprune.cli.main import main

        said = io.StringIO()
        with patch.dict(os.environ, {"TOPOPRUNE_CACHE": str(self.cache)}), contextlib.redirect_stderr(said):
            try:
                main([str(argument) for argument in arguments])
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 1
                print("" if isinstance(end.code, int) else end.code, file=said)  # as the interpreter does
        lines = said.getvalue().strip().splitlines()
        assert "Traceback" not in said.getvalue(), said.getvalue()
        return code, lines[-1] if lines else ""


def sentence_of(call: Callable[[], Any]) -> str | None:
    """The sentence that a call ends in; None if it ends well. Any other exception passes."""
    try:
        call()
    except TopopruneError as error:
        text = str(error)
        assert text and len(text.splitlines()) == 1, text
        return text
    return None


def damaged(data: bytes, rng: random.Random) -> bytes:
    """The bytes cut short, with some of them changed, or with a run of them gone."""
    kind, place = rng.randrange(4), rng.randrange(max(len(data), 1))
    if kind == 0:
        return data[:place]
    if kind == 1:
        return data[:place] + bytes([rng.randrange(256) for _ in range(8)]) + data[place + 8 :]
    if kind == 2:
        return data[:place] + data[place + 1 + rng.randrange(64) :]
    return bytes(rng.randrange(256) for _ in range(min(len(data), 4096)))


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.suffix == ".tmp"]


@contextlib.contextmanager
def small_disk(folder: Path, free: int) -> Iterator[bool]:
    """Within this block `folder` is a disk with `free` bytes left; yields whether it is a real one.

    Without the right to mount one, no file may grow beyond `free` bytes instead.
    """
    folder.mkdir(parents=True, exist_ok=True)
    libc = ctypes.CDLL(None, use_errno=True)
    size = f"size={max(free, 4096)}".encode()
    if libc.mount(b"tmpfs", str(folder).encode(), b"tmpfs", 0, size) == 0:
        try:
            if free == 0:
                fill(folder / "filler")
            yield True
        finally:
            libc.umount2(str(folder).encode(), 2)  # lazily, whoever still holds a file
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free, hard))
    try:
        yield False
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[bool]:
    """Within this block nothing can be written to `folder`; yields False where that cannot be had."""
    libc = ctypes.CDLL(None, use_errno=True)
    name, bind, remount = str(folder).encode(), 4096, 4096 | 32 | 1
    if libc.mount(name, name, None, bind, None) == 0:
        try:
            yield libc.mount(name, name, None, remount, None) == 0
        finally:
            libc.umount2(name, 2)
        return
    folder.chmod(0o555)
    try:
        yield not os.access(folder, os.W_OK)
    finally:
        folder.chmod(0o755)
