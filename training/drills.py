"""Drills: prompts whose answers spell out what the questions need in passing; used in training only.

One-word answers teach far more slowly: a drill supervises each step of what they do silently.
"""

from __future__ import annotations

import random

from lmms_topoprune.embedded import questions
from lmms_topoprune.embedded.questions import as_choice
from lmms_topoprune.embedded.scenes import COLORS, NUMBERS, SHAPES, SIZES, Scene, place

OPTIONS = (SHAPES, tuple(COLORS), SIZES, NUMBERS, questions.ORDERS, ("left", "right"), ("above", "below"))


def drill(rng: random.Random, scene: Scene, basic: float) -> tuple[str, str]:
    """A prompt and its answer; a share `basic` is about single objects and groups, the others go further."""
    if rng.random() < basic:
        return questions.drill(rng, scene)
    draw = rng.random()
    if draw < 0.3:
        return beside(rng, scene)
    if draw < 0.5:
        return two_counts(rng, scene)
    return letter(rng) if draw < 0.7 else spelled_choice(rng, scene)


def beside(rng: random.Random, scene: Scene) -> tuple[str, str]:
    """Which objects lie on one side of another; the only one is described."""
    phrase, anchor = rng.choice(questions.anchors(scene))
    side = rng.choice(tuple(questions.SIDES))
    found = questions.beside(scene, side, anchor)
    if len(found) == 1 and rng.random() < 0.7:
        return (
            f"Describe the object {side} the {phrase}.",
            f"{found[0].size} {found[0].name} at {place(found[0])}",
        )
    places = ", ".join(place(t) for t in found)
    return f"Where are the objects {side} the {phrase}?", f"{len(found)} at {places}" if found else "0"


def two_counts(rng: random.Random, scene: Scene) -> tuple[str, str]:
    """Two counts and how they compare."""
    (first, a), (second, b) = questions.two_groups(rng, scene)
    order = "more" if a > b else "fewer" if a < b else "equal"
    return f"Count the {first} and the {second}.", f"{a} and {b}, {order}"


def letter(rng: random.Random) -> tuple[str, str]:
    """What multiple choice needs beside the answer: from an option to its letter, or back."""
    values = rng.choice(OPTIONS)
    wanted = rng.choice(values)
    options = [wanted, *rng.sample([v for v in values if v != wanted], min(3, len(values) - 1))]
    rng.shuffle(options)
    name = "ABCD"[options.index(wanted)]
    listed = " ".join(f"{n}. {o}" for n, o in zip("ABCD", options, strict=False))
    if rng.random() < 0.7:
        return f"Which letter is {wanted}? {listed}", name
    return f"Which option is {name}? {listed}", wanted


def spelled_choice(rng: random.Random, scene: Scene) -> tuple[str, str]:
    """A multiple-choice question answered with the option and then its letter."""
    kinds = [kind for kind in questions.KINDS if kind != "existence"]
    while True:
        question = questions.ask(rng, scene, rng.choice(kinds), False)
        if question is not None:
            text, _, name = as_choice(rng, question)
            return f"{text} Name it first.", f"{question.answer} {name}"
