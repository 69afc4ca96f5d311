"""Questions about a scene, by kind."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache

from lmms_topoprune.embedded.scenes import COLORS, NUMBERS, PLURALS, SHAPES, SIZES, Scene, Thing, place

LETTERS = "ABCD"


@dataclass(frozen=True)
class Question:
    """A question with a one-word answer; `options` are the answers that make sense for it."""

    kind: str
    text: str
    answer: str
    options: tuple[str, ...]

    @property
    def is_yesno(self) -> bool:
        return self.options == ("yes", "no")


def yes_or_no(kind: str, text: str, truth: bool) -> Question:
    return Question(kind, text, "yes" if truth else "no", ("yes", "no"))


def as_choice(rng: random.Random, question: Question) -> tuple[str, list[str], str]:
    """Turn a question into a multiple-choice one with at most four options.

    Returns:
        The full prompt, the options in the order shown, and the letter of the right one.
    """
    wrong = [o for o in question.options if o != question.answer]
    options = [question.answer, *rng.sample(wrong, min(3, len(wrong)))]
    rng.shuffle(options)
    lines = " ".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))
    return f"{question.text} {lines}", options, LETTERS[options.index(question.answer)]


LAST = 16
"""How many scenes' descriptions are kept: a question with a wanted answer takes many tries."""
TWO_STEP = ("compare", "hop")
ORDERS = ("more", "fewer", "equal")
SIDES = {
    "left of": lambda a, b: a.col < b.col,
    "right of": lambda a, b: a.col > b.col,
    "above": lambda a, b: a.row < b.row,
    "below": lambda a, b: a.row > b.row,
}
ATTRIBUTES: dict[str, tuple[str, ...]] = {"shape": SHAPES, "color": tuple(COLORS), "size": SIZES}


def ask_two_step(rng: random.Random, scene: Scene, kind: str, yesno: bool) -> Question | None:
    """A question of one of `TWO_STEP`, or None if the scene has no unambiguous one."""
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


@lru_cache(LAST)
def hops(scene: Scene) -> tuple[tuple[str, Thing], ...]:
    """Descriptions such as "object left of the red one" that point at exactly one object."""
    ways = [
        (f"object {side} the {name}", beside(scene, side, t)) for name, t in anchors(scene) for side in SIDES
    ]
    return tuple((phrase, found[0]) for phrase, found in ways if len(found) == 1)


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


ONE_STEP = ("shape", "color", "size", "count", "existence", "relation", "extreme")
KINDS = (*ONE_STEP, *TWO_STEP)
"""What the shipped model answers, and so what the tasks and the calibration set ask."""
EXTREMES = {"leftmost": (1, -1), "rightmost": (1, 1), "topmost": (0, -1), "bottommost": (0, 1)}


def _only(things: list[Thing]) -> Thing | None:
    return things[0] if len(things) == 1 else None


@lru_cache(LAST)
def phrases(scene: Scene, kind: str) -> tuple[tuple[str, Thing], ...]:
    """Descriptions that point at exactly one object without naming the attribute asked for."""
    found = []
    for t in scene.things:
        others = [o for o in scene.things if o is not t]
        if kind == "shape" and all(o.color != t.color for o in others):
            found.append((f"{t.color} object", t))
        if kind == "color" and all(o.shape != t.shape for o in others):
            found.append((t.shape, t))
        if kind == "size":
            found.append((t.name, t))
    if kind == "extreme":
        for word, (axis, sign) in EXTREMES.items():
            places = [(sign * (t.row, t.col)[axis], t) for t in scene.things]
            best = max(p for p, _ in places)
            thing = _only([t for p, t in places if p == best])
            if thing is not None:
                found.append((f"{word} object", thing))
    return tuple(found)


def _attribute(rng: random.Random, scene: Scene, kind: str, yesno: bool) -> Question | None:
    described = phrases(scene, kind)
    if not described:
        return None
    phrase, thing = rng.choice(described)
    attribute = rng.choice(("color", "shape")) if kind == "extreme" else kind
    values = {"shape": SHAPES, "color": tuple(COLORS), "size": SIZES}[attribute]
    truth = getattr(thing, attribute)
    if not yesno:
        return Question(kind, f"What {attribute} is the {phrase}?", truth, values)
    shown = truth if rng.random() < 0.5 else rng.choice([v for v in values if v != truth])
    article = "a " if attribute == "shape" else ""
    return yes_or_no(kind, f"Is the {phrase} {article}{shown}?", shown == truth)


def _count(rng: random.Random, scene: Scene, yesno: bool) -> Question:
    what = rng.choice(("object", "shape", "color", "size"))
    values = {"object": ("",), "shape": SHAPES, "color": tuple(COLORS), "size": SIZES}[what]
    present = [getattr(t, what) for t in scene.things] if what != "object" else [""]
    value = rng.choice(present) if rng.random() < 0.8 else rng.choice(values)
    number = sum(what == "object" or getattr(t, what) == value for t in scene.things)
    noun = PLURALS[value] if what == "shape" else f"{value} objects".strip()
    if not yesno:
        return Question("count", f"How many {noun} are there?", str(number), NUMBERS)
    near = [n for n in (number - 1, number + 1) if 0 <= n <= 5]
    shown = number if rng.random() < 0.5 else rng.choice(near)
    return yes_or_no("count", f"Are there exactly {shown} {noun}?", shown == number)


def _existence(rng: random.Random, scene: Scene) -> Question:
    names = {t.name for t in scene.things}
    if rng.random() < 0.5:
        name = rng.choice(sorted(names))
    else:
        # Half of the absent objects share a color and a shape with what is there.
        colors = [t.color for t in scene.things] if rng.random() < 0.5 else list(COLORS)
        shapes = [t.shape for t in scene.things] if rng.random() < 0.5 else list(SHAPES)
        name = f"{rng.choice(colors)} {rng.choice(shapes)}"
    return yes_or_no("existence", f"Is there a {name}?", name in names)


def _relation(rng: random.Random, scene: Scene, yesno: bool) -> Question | None:
    a, b = rng.sample(scene.things, 2)
    pairs = []
    if a.col != b.col:
        pairs.append(("left of", "right of", a.col < b.col))
    if a.row != b.row:
        pairs.append(("above", "below", a.row < b.row))
    first, second, is_first = rng.choice(pairs)
    if not yesno:
        options = (first.removesuffix(" of"), second.removesuffix(" of"))
        text = f"Is the {a.name} {options[0]} or {options[1]} compared to the {b.name}?"
        return Question("relation", text, options[0 if is_first else 1], options)
    asked_first = rng.random() < 0.5
    text = f"Is the {a.name} {first if asked_first else second} the {b.name}?"
    return yes_or_no("relation", text, asked_first == is_first)


def ask(rng: random.Random, scene: Scene, kind: str, yesno: bool) -> Question | None:
    """A question of one kind about a scene, or None if the scene has no unambiguous one.

    Existence is always asked as a yes/no question.

    Raises:
        ValueError: `kind` is not one of `KINDS`.
    """
    if kind in ("shape", "color", "size", "extreme"):
        return _attribute(rng, scene, kind, yesno)
    if kind == "count":
        return _count(rng, scene, yesno)
    if kind == "existence":
        return _existence(rng, scene)
    if kind == "relation":
        return _relation(rng, scene, yesno)
    if kind in TWO_STEP:
        return ask_two_step(rng, scene, kind, yesno)
    raise ValueError(f"kind is {kind!r}; allowed: {', '.join(KINDS)}")


def drill(rng: random.Random, scene: Scene) -> tuple[str, str]:
    """A prompt whose answer spells out what the questions above need in passing.

    Used in training only: it teaches to find an object by any of its attributes and to read off
    all the others, which one-word answers teach far more slowly.
    """
    if rng.random() < 0.3:
        attribute = rng.choice(("shape", "color"))
        value = getattr(rng.choice(scene.things), attribute)
        noun = PLURALS[value] if attribute == "shape" else f"{value} objects"
        places = [place(t) for t in scene.things if getattr(t, attribute) == value]
        return f"Where are the {noun}?", f"{len(places)} at {', '.join(places)}"
    kinds = [k for k in ("shape", "color", "size", "extreme") if phrases(scene, k)]
    phrase, thing = rng.choice(phrases(scene, rng.choice(kinds)))
    return f"Describe the {phrase}.", f"{thing.size} {thing.name} at {place(thing)}"
