"""Questions that need several steps: unambiguous, answered evenly, and not to be had in one step."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import oracle
import pytest

from lmms_topoprune.embedded import questions, scenes
from lmms_topoprune.embedded.questions import Question


def drawn(kind: str, yesno: bool, count: int = 600) -> Iterator[tuple[scenes.Scene, Question]]:
    rng = random.Random(0)
    while count:
        scene = scenes.random_scene(rng)
        question = questions.ask(rng, scene, kind, yesno)
        if question is not None:
            yield scene, question
            count -= 1


@pytest.mark.parametrize("kind", questions.TWO_STEP)
@pytest.mark.parametrize("yesno", [True, False])
def test_no_answer_can_be_guessed(kind: str, yesno: bool) -> None:
    counts = Counter((q.options, q.answer) for _, q in drawn(kind, yesno))
    totals: Counter[tuple[str, ...]] = Counter()
    for (options, _), count in counts.items():
        totals[options] += count
    assert all(count / totals[options] < 1.5 / len(options) for (options, _), count in counts.items())


def test_an_object_beside_another_is_the_only_one_there() -> None:
    for scene, question in drawn("hop", False, 300):
        words = question.text.removesuffix("?").split()
        side = next(word for word in ("left", "right", "above", "below") if word in words)
        anchor = question.text.removesuffix("?").split(" the ")[-1]
        # The oracle raises where the anchor or the object beside it is not the only one.
        assert oracle.answer(scene, f"What size is the object {side} the {anchor}?") in scenes.SIZES


def test_without_the_anchor_the_answer_changes() -> None:
    # A reader who ignores the way there, and takes any object of the scene, is wrong.
    wrong = total = 0
    for scene, question in drawn("hop", False):
        attribute = question.text.split()[1]
        if attribute != "size" and len(scene.things) > 2:
            others = [getattr(t, attribute) for t in scene.things]
            wrong += sum(value != question.answer for value in others)
            total += len(others)
    assert wrong / total > 0.6


def test_comparisons_are_about_different_groups_and_one_of_them_is_there() -> None:
    rng = random.Random(1)
    for _ in range(300):
        scene = scenes.random_scene(rng)
        (first, a), (second, b) = questions.two_groups(rng, scene)
        assert first != second
        assert max(a, b) > 0
        assert a == int(oracle.answer(scene, f"How many {first} are there?"))
        assert b == int(oracle.answer(scene, f"How many {second} are there?"))
