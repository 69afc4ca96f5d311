"""The embedded calibration set: rendered scenes and real photographs, each with an instruction.

The photographs and their origin are listed in calibration/photos.json and calibration/ATTRIBUTION.md.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from lmms_topoprune.embedded import questions, scenes
from lmms_topoprune.embedded.questions import as_choice
from lmms_topoprune.errors import OptionError

Pair = tuple[str, Image.Image]
"""An instruction and an RGB image."""

SIZE = 512
FOLDER = Path(__file__).parent / "calibration"

# Asked about photographs beside the questions written for each of them.
GENERAL = (
    "Describe the image in detail.",
    "Write a short caption for this picture.",
    "What is the main subject of this image?",
    "List three things that can be seen in this photo.",
    "Which colors dominate the picture?",
    "Is this photo taken indoors or outdoors?",
    "Describe the background of the image.",
    "What could be a good title for this picture?",
    "Explain this picture to somebody who cannot see it.",
    "Is there any readable text in the image? If so, what does it say?",
    "Where might this picture have been taken?",
    "What is in the center of the picture?",
    "How many people are in this image?",
    "Which detail of this picture would most people overlook?",
)
FORMS = (*questions.KINDS, "choice", "caption", "drill")


def calibration_pairs(count: int = SIZE, seed: int = 0) -> list[Pair]:
    """The first `count` of 512 pairs; scenes and photographs take turns.

    Args:
        count: how many; every prefix is a balanced mix.
        seed: draws the scenes, the order of the photographs and which of their instructions are used.

    Raises:
        OptionError: `count` is not within 1 and 512.
    """
    if not 1 <= count <= SIZE:
        raise OptionError(f"samples is {count}; allowed: 1 to {SIZE} with calibration=embedded")
    of_scenes = _scene_pairs(random.Random(f"calibration scenes {seed}"))
    of_photos = _photo_pairs(random.Random(f"calibration photos {seed}"))
    return [next(of_photos if i % 2 else of_scenes) for i in range(count)]


@cache
def photos() -> tuple[dict[str, Any], ...]:
    """What is known of each photograph: file, title, author, license, source, package, instructions."""
    return tuple(json.loads((FOLDER / "photos.json").read_text(encoding="utf-8")))


def _scene_pairs(rng: random.Random) -> Iterator[Pair]:
    """Endless scenes of the calibration split; the forms of question come round in turn."""
    number = 0
    while True:
        scene = scenes.random_scene(rng, "calibration")
        text = _instruction(rng, scene, FORMS[number % len(FORMS)])
        if text is not None:
            number += 1
            yield text, scenes.render(scene)


def _instruction(rng: random.Random, scene: scenes.Scene, form: str) -> str | None:
    """An instruction about the scene, or None if the scene has none of this form."""
    if form == "caption":
        return scenes.DESCRIBE
    if form == "drill":
        return questions.drill(rng, scene)[0]
    if form != "choice":
        question = questions.ask(rng, scene, form, rng.random() < 0.5)
        return None if question is None else question.text
    question = questions.ask(rng, scene, rng.choice(questions.KINDS), False)
    if question is None or question.is_yesno:
        return None
    return as_choice(rng, question)[0]


def _photo_pairs(rng: random.Random) -> Iterator[Pair]:
    """Every photograph once before any comes again, each time with another instruction."""
    asked = {p["file"]: _instructions(rng, p) for p in photos()}
    while True:
        order = list(asked)
        rng.shuffle(order)
        for file in order:
            with Image.open(FOLDER / "photos" / file) as image:
                yield asked[file].pop(), image.convert("RGB")


def _instructions(rng: random.Random, photo: dict[str, Any]) -> list[str]:
    """The photograph's own instructions and two general ones, shuffled."""
    texts = [*photo["instructions"], *rng.sample(GENERAL, 2)]
    rng.shuffle(texts)
    return texts
