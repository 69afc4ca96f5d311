"""Rendered scenes and the questions one can ask of them.

A scene is a 4 x 4 grid with two to five objects. Every object has a shape, a color and a size and
fills one cell; a cell is one patch of the embedded model's vision tower. The grid is coarse on
purpose: the questions, not the pixels, are what a small model has to learn.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw

GRID = 4
CELL = 16
IMAGE_SIZE = GRID * CELL

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (214, 39, 40),
    "green": (44, 160, 44),
    "blue": (31, 90, 200),
    "yellow": (240, 210, 20),
    "purple": (148, 60, 190),
    "orange": (255, 127, 14),
}
SHAPES = ("circle", "square", "triangle", "cross", "diamond")
SIZES = ("small", "large")
PLURALS = {"cross": "crosses"} | {s: s + "s" for s in SHAPES if s != "cross"}
NUMBERS = ("0", "1", "2", "3", "4", "5")
EXTREMES = {"leftmost": (1, -1), "rightmost": (1, 1), "topmost": (0, -1), "bottommost": (0, 1)}

KINDS = ("shape", "color", "size", "count", "existence", "relation", "extreme")
SPLITS = ("test", "calibration", "train")


@dataclass(frozen=True)
class Thing:
    """One object: what it looks like and the cell (row, column) it fills."""

    shape: str
    color: str
    size: str
    row: int
    col: int

    @property
    def name(self) -> str:
        return f"{self.color} {self.shape}"


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


@dataclass(frozen=True)
class Scene:
    """Two to five objects with distinct (color, shape) pairs in distinct cells."""

    things: tuple[Thing, ...]
    background: int
    noise_seed: int

    @property
    def split(self) -> str:
        """The split this scene belongs to, decided by its content: splits cannot overlap."""
        text = repr(self.things).encode()
        bucket = int.from_bytes(hashlib.sha256(text).digest()[:4], "big") % 10
        return "test" if bucket == 0 else "calibration" if bucket == 1 else "train"


def random_scene(rng: random.Random, split: str | None = None) -> Scene:
    """Draw a scene, from the given split if one is named.

    Raises:
        ValueError: `split` is not one of `SPLITS`.
    """
    if split is not None and split not in SPLITS:
        raise ValueError(f"split is {split!r}; allowed: {', '.join(SPLITS)}")
    while True:
        count = rng.randint(2, 5)
        cells = rng.sample(range(GRID * GRID), count)
        looks = rng.sample([(s, c) for s in SHAPES for c in COLORS], count)
        things = tuple(
            Thing(shape, color, rng.choice(SIZES), *divmod(cell, GRID))
            for cell, (shape, color) in zip(sorted(cells), looks, strict=True)
        )
        scene = Scene(things, rng.randint(190, 250), rng.getrandbits(32))
        if split is None or scene.split == split:
            return scene


@cache
def _mask(shape: str, size: str) -> np.ndarray:
    """Coverage of one cell by a shape, float (CELL, CELL) in 0..1, drawn 8 times larger."""
    scale, half = 8, CELL / 2
    r = 6.5 if size == "large" else 3.75
    canvas = Image.new("L", (CELL * scale, CELL * scale), 0)
    draw = ImageDraw.Draw(canvas)

    def polygon(points: list[tuple[float, float]]) -> None:
        draw.polygon([((half + x * r) * scale, (half + y * r) * scale) for x, y in points], fill=255)

    if shape == "circle":
        draw.ellipse([(half - r) * scale] * 2 + [(half + r) * scale] * 2, fill=255)
    elif shape == "square":
        polygon([(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)])
    elif shape == "triangle":
        polygon([(0, -1), (1, 0.9), (-1, 0.9)])
    elif shape == "diamond":
        polygon([(0, -1.1), (0.8, 0), (0, 1.1), (-0.8, 0)])
    else:
        polygon([(-0.33, -1), (0.33, -1), (0.33, 1), (-0.33, 1)])
        polygon([(-1, -0.33), (1, -0.33), (1, 0.33), (-1, 0.33)])
    small = canvas.resize((CELL, CELL), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32) / 255


def render(scene: Scene) -> Image.Image:
    """The scene as an RGB image of IMAGE_SIZE x IMAGE_SIZE pixels; the same scene, the same pixels."""
    noise = np.random.default_rng(scene.noise_seed)
    pixels = np.full((IMAGE_SIZE, IMAGE_SIZE, 3), float(scene.background), dtype=np.float32)
    for thing in scene.things:
        mask = _mask(thing.shape, thing.size)[..., None]
        ys = slice(thing.row * CELL, (thing.row + 1) * CELL)
        xs = slice(thing.col * CELL, (thing.col + 1) * CELL)
        pixels[ys, xs] += mask * (np.array(COLORS[thing.color], np.float32) - pixels[ys, xs])
    pixels += noise.normal(0, 4, pixels.shape).astype(np.float32)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def caption(scene: Scene) -> str:
    """All objects in reading order, with their cells counted from 1."""
    parts = [f"{t.size} {t.name} at {_place(t)}" for t in scene.things]
    return ", ".join(parts)


def _only(things: list[Thing]) -> Thing | None:
    return things[0] if len(things) == 1 else None


def _phrases(scene: Scene, kind: str) -> list[tuple[str, Thing]]:
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
            place = [(sign * (t.row, t.col)[axis], t) for t in scene.things]
            best = max(p for p, _ in place)
            thing = _only([t for p, t in place if p == best])
            if thing is not None:
                found.append((f"{word} object", thing))
    return found


def _attribute(rng: random.Random, scene: Scene, kind: str, yesno: bool) -> Question | None:
    phrases = _phrases(scene, kind)
    if not phrases:
        return None
    phrase, thing = rng.choice(phrases)
    attribute = rng.choice(("color", "shape")) if kind == "extreme" else kind
    values = {"shape": SHAPES, "color": tuple(COLORS), "size": SIZES}[attribute]
    truth = getattr(thing, attribute)
    if not yesno:
        return Question(kind, f"What {attribute} is the {phrase}?", truth, values)
    shown = truth if rng.random() < 0.5 else rng.choice([v for v in values if v != truth])
    article = "a " if attribute == "shape" else ""
    return _yesno(kind, f"Is the {phrase} {article}{shown}?", shown == truth)


def _yesno(kind: str, text: str, truth: bool) -> Question:
    return Question(kind, text, "yes" if truth else "no", ("yes", "no"))


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
    return _yesno("count", f"Are there exactly {shown} {noun}?", shown == number)


def _existence(rng: random.Random, scene: Scene) -> Question:
    names = {t.name for t in scene.things}
    if rng.random() < 0.5:
        name = rng.choice(sorted(names))
    else:
        # Half of the absent objects share a color and a shape with what is there.
        colors = [t.color for t in scene.things] if rng.random() < 0.5 else list(COLORS)
        shapes = [t.shape for t in scene.things] if rng.random() < 0.5 else list(SHAPES)
        name = f"{rng.choice(colors)} {rng.choice(shapes)}"
    return _yesno("existence", f"Is there a {name}?", name in names)


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
    return _yesno("relation", text, asked_first == is_first)


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
    raise ValueError(f"kind is {kind!r}; allowed: {', '.join(KINDS)}")


def _place(thing: Thing) -> str:
    return f"{thing.row + 1} {thing.col + 1}"


def drill(rng: random.Random, scene: Scene) -> tuple[str, str]:
    """A prompt whose answer spells out what the questions above need in passing.

    Used in training only: it teaches to find an object by any of its attributes and to read off
    all the others, which one-word answers teach far more slowly.
    """
    if rng.random() < 0.3:
        attribute = rng.choice(("shape", "color"))
        value = getattr(rng.choice(scene.things), attribute)
        noun = PLURALS[value] if attribute == "shape" else f"{value} objects"
        places = [_place(t) for t in scene.things if getattr(t, attribute) == value]
        return f"Where are the {noun}?", f"{len(places)} at {', '.join(places)}"
    kinds = [k for k in ("shape", "color", "size", "extreme") if _phrases(scene, k)]
    phrase, thing = rng.choice(_phrases(scene, rng.choice(kinds)))
    return f"Describe the {phrase}.", f"{thing.size} {thing.name} at {_place(thing)}"


LETTERS = "ABCD"


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
