"""Questions that need several steps: comparing two counts, and finding one object by way of another."""

from __future__ import annotations

import random

from lmms_topoprune.embedded.question import Question, yes_or_no
from lmms_topoprune.embedded.scenes import COLORS, PLURALS, SHAPES, SIZES, Scene, Thing

KINDS = ("compare", "hop")
ORDERS = ("more", "fewer", "equal")
SIDES = {
    "left of": lambda a, b: a.col < b.col,
    "right of": lambda a, b: a.col > b.col,
    "above": lambda a, b: a.row < b.row,
    "below": lambda a, b: a.row > b.row,
}
ATTRIBUTES: dict[str, tuple[str, ...]] = {"shape": SHAPES, "color": tuple(COLORS), "size": SIZES}


def ask(rng: random.Random, scene: Scene, kind: str, yesno: bool) -> Question | None:
    """A question of one of `KINDS`, or None if the scene has no unambiguous one."""
    return _compare(rng, scene, yesno) if kind == "compare" else _hop(rng, scene, yesno)


def groups(scene: Scene) -> dict[str, list[Thing]]:
    """Noun of every attribute's value, "circles" or "red objects" -> the objects that have it."""
    return {
        PLURALS[value] if attribute == "shape" else f"{value} objects": [
            t for t in scene.things if getattr(t, attribute) == value
        ]
        for attribute, values in ATTRIBUTES.items()
        for value in values
    }


def two_groups(rng: random.Random, scene: Scene) -> tuple[tuple[str, int], tuple[str, int]]:
    """Two different nouns with their counts; at least one is in the scene."""
    counts = {noun: len(things) for noun, things in groups(scene).items()}
    first = rng.choice([noun for noun, count in counts.items() if count])
    others = [noun for noun in counts if noun != first]
    # Equal counts are rare among random pairs; so many make the three answers about as frequent.
    is_equal = rng.random() < 0.4
    wanted = [noun for noun in others if (counts[noun] == counts[first]) == is_equal] or others
    present = [noun for noun in wanted if counts[noun]]
    second = rng.choice(present if present and rng.random() < 0.8 else wanted)
    pair = [(first, counts[first]), (second, counts[second])]
    rng.shuffle(pair)
    return pair[0], pair[1]


def _compare(rng: random.Random, scene: Scene, yesno: bool) -> Question:
    (first, a), (second, b) = two_groups(rng, scene)
    order = "more" if a > b else "fewer" if a < b else "equal"
    if not yesno:
        text = f"Are the {first} more, fewer or equal in number compared to the {second}?"
        return Question("compare", text, order, ORDERS)
    asked = order if rng.random() < 0.5 else rng.choice([o for o in ORDERS if o != order])
    words = {"more": "more {} than {}", "fewer": "fewer {} than {}", "equal": "as many {} as {}"}
    return yes_or_no("compare", f"Are there {words[asked].format(first, second)}?", asked == order)


def anchors(scene: Scene) -> list[tuple[str, Thing]]:
    """Descriptions that point at exactly one object: "red circle", and "red one" or "circle" if unique."""
    found = []
    for t in scene.things:
        others = [o for o in scene.things if o is not t]
        found.append((t.name, t))
        if all(o.color != t.color for o in others):
            found.append((f"{t.color} one", t))
        if all(o.shape != t.shape for o in others):
            found.append((t.shape, t))
    return found


def beside(scene: Scene, side: str, anchor: Thing) -> list[Thing]:
    """The objects on one side, a key of `SIDES`, of another."""
    return [t for t in scene.things if SIDES[side](t, anchor)]


def hops(scene: Scene) -> list[tuple[str, Thing]]:
    """Descriptions such as "object left of the red one" that point at exactly one object."""
    ways = [
        (f"object {side} the {name}", beside(scene, side, t)) for name, t in anchors(scene) for side in SIDES
    ]
    return [(phrase, found[0]) for phrase, found in ways if len(found) == 1]


def _hop(rng: random.Random, scene: Scene, yesno: bool) -> Question | None:
    found = hops(scene)
    if not found:
        return None
    phrase, thing = rng.choice(found)
    attribute = rng.choice(tuple(ATTRIBUTES))
    values, truth = ATTRIBUTES[attribute], getattr(thing, attribute)
    if not yesno:
        return Question("hop", f"What {attribute} is the {phrase}?", truth, values)
    shown = truth if rng.random() < 0.5 else rng.choice([v for v in values if v != truth])
    article = "a " if attribute == "shape" else ""
    return yes_or_no("hop", f"Is the {phrase} {article}{shown}?", shown == truth)
