"""What the tasks ask: true, balanced, on unseen scenes, and the same again from the same seed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import oracle
import pytest

from lmms_topoprune.embedded import scenes
from lmms_topoprune.embedded.data import calibration_pairs
from training import make_tasks
from training.make_tasks import TASKS

Rows = Callable[[str], list[dict[str, Any]]]
Drawn = tuple[list[scenes.Scene], dict[str, list[dict[str, Any]]]]


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    return make_tasks.draw()


@pytest.mark.parametrize("task", TASKS)
def test_the_shipped_questions_are_those_of_the_seed(rows: Rows, drawn: Drawn, task: str) -> None:
    assert rows(task) == drawn[1][task]
    assert 500 <= len(rows(task)) <= 1000
    assert [row["id"] for row in rows(task)] == [f"{task}-{n:04d}" for n in range(len(rows(task)))]


def test_the_shipped_images_are_the_scenes(hooks: Any, drawn: Drawn) -> None:
    for number, scene in enumerate(drawn[0]):
        (image,) = hooks.image({"image_id": f"{number:03d}"})
        assert image.mode == "RGB"
        assert image.tobytes() == scenes.render(scene).tobytes()
    assert len(hooks._images()) == len(drawn[0])


@pytest.mark.parametrize("task", TASKS)
def test_an_independent_reader_gives_the_same_answers(rows: Rows, drawn: Drawn, task: str) -> None:
    for row in rows(task):
        question = row["question"]
        if task == "choice":
            options = dict(re.findall(r"([A-D])\. (\w+)", question))
            assert list(options.values()) == row["options"]
            assert (
                oracle.answer(drawn[0][int(row["image_id"])], question.split(" A.")[0])
                == options[row["answer"]]
            )
        else:
            assert oracle.answer(drawn[0][int(row["image_id"])], question) == row["answer"]


def test_scenes_are_new_to_training_and_calibration(drawn: Drawn) -> None:
    assert {scene.split for scene in drawn[0]} == {"test"}
    assert len({scene.things for scene in drawn[0]}) == len(drawn[0])
    seen = {image.tobytes() for _, image in calibration_pairs()}
    assert not seen & {scenes.render(scene).tobytes() for scene in drawn[0]}


@pytest.mark.parametrize("task", TASKS)
def test_halves_and_kinds_are_balanced(rows: Rows, task: str) -> None:
    counts = Counter((row["half"], row["kind"]) for row in rows(task))
    assert len(set(counts.values())) == 1
    assert {half for half, _ in counts} == {"development", "confirmation"}
    for row in rows(task):
        assert row["half"] == make_tasks.HALVES[int(row["image_id"]) % 2]


def test_every_image_has_one_question_answered_yes_and_one_answered_no(rows: Rows) -> None:
    pairs: dict[str, list[dict[str, Any]]] = {}
    for row in rows("yesno"):
        pairs.setdefault(row["image_id"], []).append(row)
    for pair in pairs.values():
        assert sorted(row["answer"] for row in pair) == ["no", "yes"]
        assert len({row["kind"] for row in pair}) == 1


@pytest.mark.parametrize("task", ["vqa", "choice"])
def test_no_answer_or_letter_is_much_more_frequent_than_the_others(rows: Rows, task: str) -> None:
    for half in make_tasks.HALVES:
        groups: dict[tuple, Counter[str]] = {}
        for row in rows(task):
            if row["half"] == half and not (task == "vqa" and row["kind"] == "count"):
                options = tuple(row["options"]) if task == "vqa" else len(row["options"])
                groups.setdefault((row["kind"], options), Counter())[row["answer"]] += 1
        for counts in groups.values():
            assert max(counts.values()) - min(counts.values()) <= 2
