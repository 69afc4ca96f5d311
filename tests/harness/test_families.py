"""No family hides a failure; test_support.py tries what each can do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from families import wrapped
from lmms_eval import models

from lmms_topoprune.errors import GenerationError
from lmms_topoprune.sweep.recipe import Recipe, run_sweep

pytestmark = pytest.mark.slow

SMALL_IMAGES = {"min_pixels": 32 * 32, "max_pixels": 64 * 64}
GIVEN = {"qwen2_vl": SMALL_IMAGES}
# The wrappers that turn an exception in generate() into an empty answer by themselves.
BUILT = {"internvl": "internvl_hf"}
SWALLOWING = ("internvl", "instructblip")


@pytest.fixture(scope="module")
def family_folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            # lmms-eval's glm4v takes the mixture of experts unless the name says "Flash".
            made[name] = wrapped.save(BUILT.get(name, name), tmp_path_factory.mktemp(f"{name}-Flash"))
        return made[name]

    return folder


def create(name: str, folder: Path, **arguments: Any) -> tuple[Any, str]:
    made = models.get_model(name)
    lm = made(pretrained=str(folder), **arguments)
    return lm, "simple" if lm.is_simple else "chat"


@pytest.fixture(scope="module")
def few(asked: Any) -> Any:
    return type(asked)(asked.docs[:3])


@pytest.mark.parametrize("family", ["qwen2_vl", "idefics2"])
def test_a_family_is_swept_on_tasks_of_ones_own(family, family_folder, tasks, tmp_path):
    """What only LLaVA and the embedded tasks could do."""
    recipe = Recipe(
        models=[{"model": family, "pretrained": str(family_folder(family)), **GIVEN.get(family, {})}],
        criteria=["last_n", "cosine"],
        sparsities=[0.3],
        tasks=["tiny_questions"],
        include_path=str(tasks),
        limit=2,
        batch_size=2,
        options={"samples": 8},
    )
    runs = run_sweep(recipe, tmp_path / "out")
    assert len(runs) == 3 and runs[0].dropped == "none"
    assert {run.setting["model"] for run in runs[1:]} == {f"topopruned_{family}"}
    assert Recipe.load(tmp_path / "out" / "recipe.yaml") == recipe


@pytest.mark.parametrize("family", SWALLOWING)
def test_a_swallowed_exception_stops_the_run_or_is_counted(family, family_folder, few):
    folder = family_folder(family)
    lm, kind = create(f"dense_{family}", folder, self_test=False)
    lm.network.generate = lambda *_, **__: 1 / 0
    with pytest.raises(GenerationError, match="ZeroDivisionError"):
        few.ask(lm, few.requests(kind))
    lm, kind = create(f"dense_{family}", folder, self_test=False, on_error="record")
    lm.network.generate = lambda *_, **__: 1 / 0
    assert few.ask(lm, few.requests(kind)) == ["", "", ""]
    assert len(lm.answers.failures) == 3


@pytest.mark.parametrize("on_error", ["raise", "record"])
def test_ctrl_c_is_no_failure_to_answer(on_error, family_folder, few):
    lm, kind = create("dense_idefics2", family_folder("idefics2"), self_test=False, on_error=on_error)
    lm.network.generate = hidden_ctrl_c
    with pytest.raises(KeyboardInterrupt):
        few.ask(lm, few.requests(kind))
    assert not lm.answers.failures


def hidden_ctrl_c(**_: object) -> None:
    try:
        raise KeyboardInterrupt
    finally:
        raise UnboundLocalError("a clean-up that fails")


def test_requests_keep_their_settings(family_folder, few):
    settings = {"max_new_tokens": 2, "until": ["\n\n"]}
    lm, kind = create("dense_idefics2", family_folder("idefics2"), self_test=False)
    few.ask(lm, few.requests(kind, settings))
    assert settings == {"max_new_tokens": 2, "until": ["\n\n"]}
