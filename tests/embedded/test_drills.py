"""Drills and conversations: what they say is true, and what they ask is what both models learn."""

from __future__ import annotations

import random
import re
from collections import Counter
from itertools import islice

import oracle
from hypothesis import given, settings
from hypothesis import strategies as st

from lmms_topoprune.embedded import scenes
from training import drills
from training.conversations import EARLY, KINDS, LATE, conversation

seeds = st.integers(0, 2**32)


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_what_lies_beside_an_object_is_all_that_lies_there(seed: int) -> None:
    rng = random.Random(seed)
    scene = scenes.random_scene(rng)
    text, answer = drills.beside(rng, scene)
    side, phrase = re.fullmatch(r".* (left|right|above|below)(?: of)? the (.+?)[.?]", text).groups()  # type: ignore[union-attr]
    anchor = oracle._one(scene, phrase)
    there = {scenes.place(t): t for t in scene.things if oracle.RELATIONS[side](t, anchor)}
    if text.startswith("Describe"):
        ((place, thing),) = there.items()
        assert answer == f"{thing.size} {thing.name} at {place}"
    elif there:
        number, places = answer.split(" at ")
        assert set(places.split(", ")) == there.keys() and int(number) == len(there)
    else:
        assert answer == "0"


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_two_counts_are_those_of_the_scene(seed: int) -> None:
    rng = random.Random(seed)
    scene = scenes.random_scene(rng)
    text, answer = drills.two_counts(rng, scene)
    first, second = re.fullmatch(r"Count the (.+) and the (.+)\.", text).groups()  # type: ignore[union-attr]
    a, b, order = re.fullmatch(r"(\d) and (\d), (\w+)", answer).groups()  # type: ignore[union-attr]
    assert (a, b) == tuple(oracle.answer(scene, f"How many {noun} are there?") for noun in (first, second))
    asked = f"Are the {first} more, fewer or equal in number compared to the {second}?"
    assert order == oracle.answer(scene, asked)


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_letters_and_options_belong_together(seed: int) -> None:
    rng = random.Random(seed)
    text, answer = drills.letter(rng)
    options = dict(re.findall(r"([A-D])\. (\w+)", text))
    asked = re.match(r"Which (?:letter|option) is (\w+)\?", text)[1]  # type: ignore[index]
    assert {asked, answer} == next({k, v} for k, v in options.items() if asked in (k, v))
    assert len(set(options.values())) == len(options)


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_a_spelled_choice_gives_the_answer_and_its_letter(seed: int) -> None:
    rng = random.Random(seed)
    scene = scenes.random_scene(rng)
    text, answer = drills.spelled_choice(rng, scene)
    word, letter = answer.split()
    assert word == oracle.answer(scene, text.split(" A. ")[0])
    assert dict(re.findall(r"([A-D])\. (\w+)", text))[letter] == word


def test_a_conversation_has_every_form_and_the_mix_decides_how_often() -> None:
    shares = {}
    for name, mix in (("early", EARLY), ("late", LATE)):
        rng = random.Random(0)
        turns = [
            turn for _ in range(300) for turn in islice(conversation(rng, scenes.random_scene(rng), mix), 8)
        ]
        answers = Counter(answer for _, answer in turns)
        shares[name] = sum(answers[letter] for letter in "ABCD") / len(turns)
        assert {"yes", "no", "more", "fewer", "equal", *scenes.COLORS, *scenes.SHAPES, *scenes.SIZES} <= set(
            answers
        )
    assert shares["early"] < shares["late"]
    assert set(KINDS) >= {"compare", "hop", "relation"}
