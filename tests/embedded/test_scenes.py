"""Rendered scenes: what is asked about them is true, and the splits cannot overlap."""

from __future__ import annotations

import random
import re
from collections import Counter

import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmms_topoprune.embedded import questions, scenes
from lmms_topoprune.embedded.questions import as_choice

seeds = st.integers(0, 2**32)


@settings(max_examples=150, deadline=None)
@given(seeds, st.sampled_from(questions.KINDS), st.booleans())
def test_every_answer_is_the_one_an_independent_reader_gives(seed: int, kind: str, yesno: bool) -> None:
    rng = random.Random(seed)
    scene = scenes.random_scene(rng)
    for _ in range(5):
        question = questions.ask(rng, scene, kind, yesno)
        if question is not None:
            assert question.answer == oracle.answer(scene, question.text), question.text
            assert question.answer in question.options
            assert question.kind == kind


def test_the_independent_reader_sees_a_mirrored_scene_as_different() -> None:
    # The oracle is worth something only if a wrong scene gives other answers.
    rng = random.Random(0)
    different = 0
    for _ in range(100):
        scene = scenes.random_scene(rng)
        question = questions.ask(rng, scene, "relation", False)
        assert question is not None
        things = tuple(
            scenes.Thing(t.shape, t.color, t.size, scenes.GRID - 1 - t.row, scenes.GRID - 1 - t.col)
            for t in scene.things
        )
        mirrored = scenes.Scene(things, scene.background, scene.noise_seed)
        different += oracle.answer(mirrored, question.text) != question.answer
    assert different == 100


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_the_letter_names_the_right_option(seed: int) -> None:
    rng = random.Random(seed)
    scene = scenes.random_scene(rng)
    question = questions.ask(rng, scene, "color", False)
    if question is None:
        return
    text, options, letter = as_choice(rng, question)
    assert dict(re.findall(r"([A-D])\. (\w+)", text))[letter] == question.answer
    assert len(set(options)) == len(options) <= 4


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_objects_have_their_own_cells_looks_and_colors(seed: int) -> None:
    scene = scenes.random_scene(random.Random(seed))
    assert 2 <= len(scene.things) <= 5
    assert len({(t.row, t.col) for t in scene.things}) == len(scene.things)
    assert len({t.name for t in scene.things}) == len(scene.things)
    pixels = np.asarray(scenes.render(scene), dtype=float)
    middle = scenes.CELL // 2
    for t in scene.things:
        cell = pixels[t.row * scenes.CELL :, t.col * scenes.CELL :][: scenes.CELL, : scenes.CELL]
        center = cell[middle - 2 : middle + 2, middle - 2 : middle + 2].mean((0, 1))
        nearest = min(scenes.COLORS, key=lambda c: np.abs(center - scenes.COLORS[c]).sum())
        assert nearest == t.color


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_drills_and_captions_describe_what_is_there(seed: int) -> None:
    rng = random.Random(seed)
    scene = scenes.random_scene(rng)
    places = {f"{t.row + 1} {t.col + 1}" for t in scene.things}
    there = {f"{t.size} {t.name} at {t.row + 1} {t.col + 1}" for t in scene.things}
    assert set(scenes.caption(scene).split(", ")) == there
    text, answer = questions.drill(rng, scene)
    if text.startswith("Describe"):
        assert answer in there
    else:
        number, places = answer.split(" at ")
        assert int(number) == len(places.split(", "))
        assert all(
            any(place == f"{t.row + 1} {t.col + 1}" for t in scene.things) for place in places.split(", ")
        )


def test_the_same_seed_gives_the_same_scene_and_pixels() -> None:
    first, again = (scenes.random_scene(random.Random(7), "test") for _ in range(2))
    assert first == again
    assert scenes.render(first).tobytes() == scenes.render(again).tobytes()


def test_the_split_depends_on_the_objects_alone() -> None:
    rng = random.Random(0)
    found = Counter()
    for _ in range(3000):
        scene = scenes.random_scene(rng)
        assert scene.split == scenes.Scene(scene.things, 0, 0).split
        found[scene.split] += 1
    assert 0.07 < found["test"] / 3000 < 0.13
    assert 0.07 < found["calibration"] / 3000 < 0.13
    for split in scenes.SPLITS:
        assert all(scenes.random_scene(rng, split).split == split for _ in range(20))


def test_unknown_names_are_refused() -> None:
    rng = random.Random(0)
    with pytest.raises(ValueError, match="split is 'exam'"):
        scenes.random_scene(rng, "exam")
    with pytest.raises(ValueError, match="kind is 'smell'"):
        questions.ask(rng, scenes.random_scene(rng), "smell", True)
