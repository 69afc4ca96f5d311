"""Answers a question about a scene by reading its text: an implementation independent of questions.ask."""

from __future__ import annotations

import re

from lmms_topoprune.embedded.scenes import COLORS, SHAPES, SIZES, Scene, Thing

EXTREMES = {
    "leftmost": lambda t: t.col,
    "rightmost": lambda t: -t.col,
    "topmost": lambda t: t.row,
    "bottommost": lambda t: -t.row,
}
RELATIONS = {
    "left": lambda a, b: a.col < b.col,
    "right": lambda a, b: a.col > b.col,
    "above": lambda a, b: a.row < b.row,
    "below": lambda a, b: a.row > b.row,
}


def answer(scene: Scene, question: str) -> str:
    """The right answer in the words of the question's options."""
    if found := re.fullmatch(r"Are the (.+) more, fewer or equal in number compared to the (.+)\?", question):
        a, b = _count(scene, found[1]), _count(scene, found[2])
        return {1: "more", -1: "fewer", 0: "equal"}[(a > b) - (a < b)]
    if found := re.fullmatch(r"Are there (more|fewer) (.+) than (.+)\?", question):
        a, b = _count(scene, found[2]), _count(scene, found[3])
        return _yes(a > b if found[1] == "more" else a < b)
    if found := re.fullmatch(r"Are there as many (.+) as (.+)\?", question):
        return _yes(_count(scene, found[1]) == _count(scene, found[2]))
    if found := re.fullmatch(r"What (color|shape|size) is the object (\w+)(?: of)? the (.+)\?", question):
        return getattr(_beside(scene, found[2], found[3]), found[1])
    if found := re.fullmatch(
        r"Is the object (left|right|above|below)(?: of)? the (.+?)(?: a)? (\w+)\?", question
    ):
        thing = _beside(scene, found[1], found[2])
        return _yes(found[3] in (thing.color, thing.shape, thing.size))
    if found := re.fullmatch(r"Is the (.+) (\w+) or (\w+) compared to the (.+)\?", question):
        a, first, second, b = found.groups()
        holds = [word for word in (first, second) if RELATIONS[word](_one(scene, a), _one(scene, b))]
        return _only(holds)
    if found := re.fullmatch(r"Is the (.+) (left|right|above|below)(?: of)? the (.+)\?", question):
        return _yes(RELATIONS[found[2]](_one(scene, found[1]), _one(scene, found[3])))
    if found := re.fullmatch(r"What (color|shape|size) is the (.+)\?", question):
        return getattr(_one(scene, found[2]), found[1])
    if found := re.fullmatch(r"How many (.+) are there\?", question):
        return str(_count(scene, found[1]))
    if found := re.fullmatch(r"Are there exactly (\d) (.+)\?", question):
        return _yes(_count(scene, found[2]) == int(found[1]))
    if found := re.fullmatch(r"Is there a (\w+) (\w+)\?", question):
        return _yes(any((t.color, t.shape) == (found[1], found[2]) for t in scene.things))
    if found := re.fullmatch(r"Is the (.+?)(?: a)? (\w+)\?", question):
        thing = _one(scene, found[1])
        return _yes(found[2] in (thing.color, thing.shape, thing.size))
    raise ValueError(f"no such question: {question}")


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"


def _only(values: list) -> object:
    if len(values) != 1:
        raise ValueError(f"ambiguous: {values}")
    return values[0]


def _one(scene: Scene, phrase: str) -> Thing:
    """The only object a phrase such as "red circle", "cross" or "topmost object" fits."""
    first = phrase.split()[0]
    if first in EXTREMES:
        best = min(EXTREMES[first](t) for t in scene.things)
        return _only([t for t in scene.things if EXTREMES[first](t) == best])
    words = [word for word in phrase.split() if word not in ("object", "one")]
    return _only([t for t in scene.things if all(w in (t.color, t.shape) for w in words)])


def _beside(scene: Scene, side: str, phrase: str) -> Thing:
    """The only object on one side of the object that a phrase fits."""
    anchor = _one(scene, phrase)
    return _only([t for t in scene.things if RELATIONS[side](t, anchor)])


def _count(scene: Scene, noun: str) -> int:
    word = noun.split()[0]
    singular = word.removesuffix("es") if word == "crosses" else word.removesuffix("s")
    if word == "objects":
        return len(scene.things)
    assert word in COLORS or word in SIZES or singular in SHAPES, noun
    return sum(word in (t.color, t.size) or singular == t.shape for t in scene.things)
