"""What every room's tests may use: a tiny model, its processor, and calibration samples."""

from __future__ import annotations

import gc
import os
import random
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # torch and transformers take seconds that numpy's tests do not need
    from transformers import LlavaForConditionalGeneration, LlavaProcessor

    from lmms_topoprune.calibration.samples import Sample

# transformers imports a checkpoint's own code from one folder a process, which it reads when it is imported.
MODULES = tempfile.TemporaryDirectory(prefix="hf_modules")
os.environ["HF_MODULES_CACHE"] = MODULES.name

# Behind everything else: where the package is installed, its tests read what is installed.
sys.path.append(str(Path(__file__).parents[1]))

if "PYTEST_XDIST_WORKER" in os.environ:  # the processes share the cores; threads of each would fight for them
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # where a test asks for threads, they wait asleep

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A job in the background ignores Ctrl-C, and so would every process that a test starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)


# timm, which transformers looks for, tries to import it: five seconds for what no test is about.
sys.modules["wandb"] = None  # type: ignore[assignment]


def pytest_collection_finish() -> None:
    """What is imported stays: the many garbage collections that lmms-eval asks for need not walk it."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Every logical core, up to eight: a process with torch takes one to two gigabytes."""
    return min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 8)


@pytest.fixture(autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or fills the user's cache."""
    monkeypatch.setenv("TOPOPRUNE_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def embedded_processor() -> LlavaProcessor:
    """That of `build.build_processor`, as it is shipped: training its tokenizer takes seconds."""
    from transformers import LlavaProcessor

    from lmms_topoprune._util.packaged import model_path

    return LlavaProcessor.from_pretrained(model_path())


@pytest.fixture(scope="session")
def tiny_llava(embedded_processor: LlavaProcessor) -> Callable[..., LlavaForConditionalGeneration]:
    """Makes random LLaVA models: tiny_llava(layers=6, seed=0)."""
    from training.embedded import build

    def make(layers: int = 6, seed: int = 0) -> LlavaForConditionalGeneration:
        size = build.Size(layers=layers, width=32, mlp=64, heads=4, vision_layers=1, vision_width=32)
        return build.build_model(embedded_processor, size, seed).eval()

    return make


@pytest.fixture(scope="session")
def samples() -> list[Sample]:
    """32 questions of different length about different scenes."""
    from lmms_topoprune.calibration.samples import Sample
    from lmms_topoprune.embedded import questions, scenes

    rng = random.Random(0)
    found: list[Sample] = []
    while len(found) < 32:
        scene = scenes.random_scene(rng, "train")
        if question := questions.ask(rng, scene, rng.choice(questions.KINDS), rng.random() < 0.5):
            found.append(Sample(question.text, scenes.render(scene)))
    return found
