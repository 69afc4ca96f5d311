"""Every cell of the support matrix is tried: what is promised works, what is not ends in a sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import support
from accelerate import Accelerator
from families import wrapped
from families.tiny import LAYERS
from lmms_eval import models
from PIL import Image
from support import SUPPORT, Support
from test_likelihood import CHOICES, likelihoods, plain
from test_media import film, films  # noqa: F401  a fixture
from transformers import AutoProcessor

from lmms_topoprune.errors import TopopruneError
from lmms_topoprune.surgery import export
from lmms_topoprune.surgery.export_folder import renumber_quantization
from lmms_topoprune.surgery.locate import layers_path

DOCS = Path(__file__).parents[2] / "docs" / "models.md"
# Where a task does not say it, some wrappers draw tokens.
SETTINGS = {"max_new_tokens": 8, "until": ["\n\n"], "temperature": 0}
QWEN = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5")
GIVEN = {
    "gemma4": {"max_soft_tokens": 70},
    **{name: {"max_frames_num": 2} for name in ("aria", "phi4_multimodal")},
    **{name: {"min_pixels": 32 * 32, "max_pixels": 64 * 64} for name in QWEN},
}
# They run only with an image, which not every embedded sample has.
IMAGES_ONLY = ("llama_vision", "instructblip")
PLAIN = ("qwen2_vl", "gemma3", "idefics2", "internvl", "video_llava", "phi4_multimodal", "qwen2_5_omni")


@pytest.fixture(scope="module")
def docs() -> list[dict[str, Any]]:
    pixels = np.random.default_rng(0)
    shapes = (("What is it?", 56, 56), ("How many are there? Look closely.", 64, 56), ("Is it red?", 56, 80))
    return [
        {"question": text, "images": [Image.fromarray(pixels.integers(0, 255, (h, w, 3), dtype=np.uint8))]}
        for text, h, w in shapes
    ]


@pytest.fixture(scope="module")
def pictures(docs: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibration set of eight images."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(8):
        docs[number % 3]["images"][0].rotate(40 * number).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            place = tmp_path_factory.mktemp(f"{name}-Flash")  # lmms-eval's glm4v looks at it
            made[name] = wrapped.save(name, place, wrapped.BUILDERS | wrapped.SHOWING)
        return made[name]

    return folder


@contextmanager
def one_of_two() -> Iterator[None]:
    """Within this block accelerate says that another process runs beside this one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Accelerator, "num_processes", property(lambda _: 2))
        yield


def create(row: Support, kind: str, folder: Path, prefix: str = "dense", **more: Any) -> Any:
    found = models.get_model(f"{prefix}_{row.name}", force_simple=kind == "simple")
    assert found.is_simple == (kind == "simple")
    return found(pretrained=str(folder), device="cpu", **GIVEN.get(row.name, {}), **more)


def test_the_documented_table_is_what_the_tests_try() -> None:
    page = DOCS.read_text(encoding="utf-8")
    assert support.table() in page, "python tests/harness/support.py prints the table"
    assert re.findall(r"^- \*\*(\w+)\*\*: ", page, re.MULTILINE) == support.columns()[1], "what all can do"


CASES = [pytest.param(row, kind, id=f"{row.name}-{row.made}-{kind}") for row in SUPPORT for kind in row.kinds]


@pytest.mark.slow
@pytest.mark.parametrize(("row", "kind"), CASES)
def test_a_family_does_what_the_table_says(
    row: Support, kind: str, folders: Any, docs: Any, asked: Any, pictures: Path, tmp_path: Path, request: Any
) -> None:
    questions, dense = type(asked)(docs), folders(row.made)
    with one_of_two():
        lm = create(row, kind, dense)
    single = questions.ask(lm, questions.requests(kind, SETTINGS))
    alone = _likelihoods(lm, docs)
    if row.name in PLAIN:
        computed = [plain(lm, doc, choice) for doc in docs for choice in CHOICES]
        assert alone == pytest.approx(computed, abs=2e-3)
    _several_images(row, kind, lm, docs, asked)
    _videos(row, kind, lm, request.getfixturevalue("film"))
    if row.batch:
        batched = create(row, kind, dense, batch_size=3)
        assert questions.ask(batched, questions.requests(kind, SETTINGS)) == single
        assert _likelihoods(batched, docs) == pytest.approx(alone, abs=2e-3)
    else:
        with pytest.raises(TopopruneError):
            questions.ask(create(row, kind, dense, batch_size=3), questions.requests(kind, SETTINGS))
    given = {"sparsity": 0.2, "samples": 8}
    if row.name in IMAGES_ONLY:
        given["calibration"] = str(pictures)
    pruned = create(row, kind, dense, "topopruned", **given)
    answers = questions.ask(pruned, questions.requests(kind, SETTINGS))
    assert len(pruned.plan.dropped) == 1 and len(answers) == 3
    assert pruned.network.config.get_text_config().num_hidden_layers == LAYERS - 1
    assert str(pruned.network.dtype) == "torch.float32" and pruned.answers.total == 3
    assert _likelihoods(pruned, docs) != alone
    _renumbered(pruned)
    if kind != row.kinds[0]:  # repair and export do not depend on the prompts
        return
    if row.repair:
        if row.name == "llama4_scout":  # in front of its mixture-of-experts layers a map finds no place
            given["criterion"] = "topology_angle_influence"
        pruned = create(row, kind, dense, "topopruned", repair="linear", **given)
        answers = questions.ask(pruned, questions.requests(kind, SETTINGS))
    else:
        with pytest.raises(TopopruneError, match=r"repair is 'linear', but this .* allows"):
            create(row, kind, dense, "topopruned", repair="linear", **given)
    processor = AutoProcessor.from_pretrained(dense)  # the wrapper's may be worded for its own use
    folder = export(pruned.network, processor, pruned.plan, tmp_path / "Flash", source=str(dense))
    exported = create(row, kind, folder)
    assert questions.ask(exported, questions.requests(kind, SETTINGS)) == answers
    assert _likelihoods(exported, docs) == pytest.approx(_likelihoods(pruned, docs), abs=2e-3)


def _likelihoods(lm: Any, docs: list[dict[str, Any]]) -> list[float]:
    return [value for value, _ in likelihoods(lm, docs)]


def _several_images(row: Support, kind: str, lm: Any, docs: Any, asked: Any) -> None:
    several = type(asked)([{"question": "Are they alike?", "images": docs[0]["images"] + docs[1]["images"]}])
    if row.images:
        assert len(several.ask(lm, several.requests(kind, SETTINGS))) == 1
    else:
        with pytest.raises(TopopruneError):
            several.ask(lm, several.requests(kind, SETTINGS))


def _videos(row: Support, kind: str, lm: Any, shown: Path) -> None:
    lm.task_dict = {"tiny": {"test": [{}]}}
    if row.video:
        assert len(lm.generate_until(films(kind, shown))) == 1
    else:
        with pytest.raises(TopopruneError):
            lm.generate_until(films(kind, shown))


def _renumbered(pruned: Any) -> None:
    """What a quantized folder says of the last layer holds for the last one left."""
    path, modules = layers_path(pruned.network), [name for name, _ in pruned.network.named_modules()]
    last = f"{path}.{LAYERS - 2}."
    part = next(name for name in modules if name.startswith(last)).removeprefix(last)
    settings = {"modules_to_not_convert": [f"{path}.{LAYERS - 1}.{part}"]}
    found = renumber_quantization(settings, path, pruned.plan.kept, modules)
    assert found == {"modules_to_not_convert": [f"{last}{part}"]}
