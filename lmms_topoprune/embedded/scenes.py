"""Rendered scenes.

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
SPLITS = ("test", "calibration", "train")
DESCRIBE = "Describe the scene."
"""What a caption answers."""


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
    parts = [f"{t.size} {t.name} at {place(t)}" for t in scene.things]
    return ", ".join(parts)


def place(thing: Thing) -> str:
    """Row and column of its cell, counted from 1."""
    return f"{thing.row + 1} {thing.col + 1}"
