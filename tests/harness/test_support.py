"""Every cell of the support matrix is tried: what is promised works, what is not ends in a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import support
from families import wrapped
from families.tiny import LAYERS
from lmms_eval import models
from PIL import Image
from support import SUPPORT, Support
from test_likelihood import likelihoods
from test_media import film, films  # noqa: F401  a fixture

from lmms_topoprune.errors import TopopruneError

DOCS = Path(__file__).parents[2] / "docs" / "models.md"
# Where a task does not say it, some wrappers draw tokens.
SETTINGS = {"max_new_tokens": 8, "until": ["\n\n"], "temperature": 0}
QWEN = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5")
GIVEN = {
    "gemma4": {"max_soft_tokens": 70},
    **{name: {"min_pixels": 32 * 32, "max_pixels": 64 * 64} for name in QWEN},
}


@pytest.fixture(scope="module")
def docs() -> list[dict[str, Any]]:
    pixels = np.random.default_rng(0)
    shapes = (("What is it?", 56, 56), ("How many are there? Look closely.", 64, 56), ("Is it red?", 56, 80))
    return [
        {"question": text, "images": [Image.fromarray(pixels.integers(0, 255, (h, w, 3), dtype=np.uint8))]}
        for text, h, w in shapes
    ]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            place = tmp_path_factory.mktemp(f"{name}-Flash")  # lmms-eval's glm4v looks at it
            made[name] = wrapped.save(name, place, wrapped.BUILDERS | wrapped.SHOWING)
        return made[name]

    return folder


def create(row: Support, kind: str, folder: Path, criterion: str = "dense", **more: Any) -> Any:
    found = models.get_model(f"{criterion}_{row.name}", force_simple=kind == "simple")
    assert found.is_simple == (kind == "simple")
    return found(pretrained=str(folder), **GIVEN.get(row.name, {}), **more)


def _pruned(row: Support) -> dict[str, Any]:
    """Two families run only with an image, which not every sample of the embedded set has."""
    return (
        {"layers": "3"} if row.name in ("llama_vision", "instructblip") else {"sparsity": 0.2, "samples": 8}
    )


def test_the_documented_table_is_what_the_tests_try() -> None:
    assert support.table() in DOCS.read_text(), "python tests/harness/support.py prints the table"


CASES = [pytest.param(row, kind, id=f"{row.name}-{row.made}-{kind}") for row in SUPPORT for kind in row.kinds]


@pytest.mark.slow
@pytest.mark.parametrize(("row", "kind"), CASES)
def test_a_family_does_what_the_table_says(
    row: Support, kind: str, folders: Any, docs: Any, asked: Any, request: Any
) -> None:
    questions = type(asked)(docs)
    lm = create(row, kind, folders(row.made))
    single = questions.ask(lm, questions.requests(kind, SETTINGS))
    alone = likelihoods(lm, docs)
    two = [{"question": "Are they alike?", "images": docs[0]["images"] + docs[1]["images"]}]
    several = type(asked)(two)
    if row.images:
        assert len(several.ask(lm, several.requests(kind, SETTINGS))) == 1
    else:
        with pytest.raises(TopopruneError):
            several.ask(lm, several.requests(kind, SETTINGS))
    shown = request.getfixturevalue("film")
    lm.task_dict = {"tiny": {"test": [{}]}}
    if row.video:
        assert len(lm.generate_until(films(kind, shown))) == 1
    else:
        with pytest.raises(TopopruneError):
            lm.generate_until(films(kind, shown))
    if row.batch:
        batched = create(row, kind, folders(row.made), batch_size=3)
        assert questions.ask(batched, questions.requests(kind, SETTINGS)) == single
        together = likelihoods(batched, docs)
        assert [value for value, _ in together] == pytest.approx([value for value, _ in alone], abs=2e-3)
    else:
        with pytest.raises(TopopruneError):
            questions.ask(
                create(row, kind, folders(row.made), batch_size=3), questions.requests(kind, SETTINGS)
            )
    pruned = create(row, kind, folders(row.made), "topopruned", **_pruned(row))
    assert (
        len(pruned.plan.dropped) == 1 and len(questions.ask(pruned, questions.requests(kind, SETTINGS))) == 3
    )
    assert pruned.network.config.get_text_config().num_hidden_layers == LAYERS - 1
    assert str(pruned.network.dtype) == "torch.float32" and pruned.answers.total == 3
    assert [value for value, _ in likelihoods(pruned, docs)] != [value for value, _ in alone]
