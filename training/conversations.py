"""Conversations about random scenes, as text: what both models are trained on."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from lmms_topoprune.embedded import questions, scenes
from lmms_topoprune.embedded.questions import KINDS, as_choice
from training.drills import drill

SUFFIXES = {
    "short": "\nAnswer the question using a single word or phrase.",
    "yesno": " Please answer yes or no.",
    "choice": "\nAnswer with the option's letter from the given choices directly.",
}

Turn = tuple[str, str]


@dataclass(frozen=True)
class Mix:
    """Shares of captions (of first turns), of drills, of basic ones among them, and of multiple choice (of
    questions that allow it); the kinds to draw from.
    """

    captions: float
    drills: float
    basic: float
    choices: float
    kinds: tuple[str, ...] = KINDS


# Captions and drills supervise what one-word answers need in passing; without them colors and
# shapes are told apart, but hardly ever found by one another. Once they are found, what is left is
# comparing, counting and choosing.
EARLY = Mix(captions=0.25, drills=0.45, basic=0.5, choices=0.4)
LATE = Mix(
    captions=0.03,
    drills=0.25,
    basic=0.2,
    choices=0.6,
    kinds=(*KINDS, "count", "compare", "compare", "compare", "hop", "hop", "hop"),
)
# What is seen at once is learned early; what is left are the kinds that need several places at a time.
LATER = replace(
    LATE,
    kinds=(*KINDS, *("count", "relation", "extreme", "compare") * 2, "compare", "hop"),
)


def conversation(rng: random.Random, scene: scenes.Scene, mix: Mix) -> Iterator[Turn]:
    """Endless prompts and answers about a scene."""
    if rng.random() < mix.captions:
        yield scenes.DESCRIBE, scenes.caption(scene)
    while True:
        yield drill(rng, scene, mix.basic) if rng.random() < mix.drills else ask(rng, scene, mix)


def ask(rng: random.Random, scene: scenes.Scene, mix: Mix) -> Turn:
    """A prompt and its answer; a few carry the instructions that lmms-eval's tasks append."""
    while True:
        question = questions.ask(rng, scene, rng.choice(mix.kinds), rng.random() < 0.4)
        if question is None:
            continue
        if not question.is_yesno and rng.random() < mix.choices:
            text, _, letter = as_choice(rng, question)
            return text + (SUFFIXES["choice"] if rng.random() < 0.1 else ""), letter
        style = rng.random()
        if style < 0.05:
            return question.text + SUFFIXES["short"], question.answer
        if style < 0.1 and question.is_yesno:
            return question.text + SUFFIXES["yesno"], question.answer
        return question.text, question.answer
