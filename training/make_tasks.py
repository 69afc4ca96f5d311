"""`python -m training.make_tasks`: draw the embedded tasks' questions and images.

The questions go to tasks/data/*.jsonl, the images, shared by the three tasks, to tasks/data/images.zip.
The same seed gives the same files.
"""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from lmms_topoprune._util.packaged import shared_path
from lmms_topoprune.embedded import questions, scenes
from lmms_topoprune.embedded.questions import LETTERS, Question, as_choice

# A multiple of 36 gives every kind equally many questions in every task and half.
IMAGES = 288
SEED = 0
TASKS = ("yesno", "vqa", "choice")
HALVES = ("development", "confirmation")
# Kinds of which the embedded model of release 0.2 answered three quarters or more in that form.
ASKED = {
    "yesno": ("shape", "color", "size", "existence", "extreme", "hop"),
    "vqa": questions.KINDS,
    "choice": ("shape", "color", "size", "relation", "extreme", "hop"),
}
# Not uniform: scenes with four or five of a sort are rare, and none of a sort is easy.
COUNTS = ("0", "1", "1", "2", "2", "3", "3", "4", "5")
ANSWERS: dict[str, tuple[str, ...]] = {
    "shape": scenes.SHAPES,
    "color": tuple(scenes.COLORS),
    "size": scenes.SIZES,
    "count": COUNTS,
    "existence": ("yes", "no"),
    "relation": ("left", "right", "above", "below"),
    "extreme": (*scenes.COLORS, *scenes.SHAPES),
    "compare": questions.ORDERS,
    "hop": (*scenes.COLORS, *scenes.SHAPES, *scenes.SIZES),
}

Row = dict[str, Any]


class Targets:
    """Which answer the next question of a task, kind and half should have: rounds of all, each shuffled."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.waiting: dict[tuple[str, str, str], list[str]] = {}
        self.asked: Counter[tuple[str, str, str, int]] = Counter()

    def next(self, task: str, kind: str, half: str) -> str:
        queue = self.waiting.setdefault((task, kind, half), [])
        if not queue:
            queue.extend(self.rng.sample(ANSWERS[kind], len(ANSWERS[kind])))
        return queue[-1]

    def take(self, task: str, row: Row) -> None:
        """Count a row that is asked, by how many options it shows."""
        self.waiting[task, row["kind"], row["half"]].pop()
        self.asked[task, row["kind"], row["half"], len(row["options"])] += 1


def draw(images: int = IMAGES, seed: int = SEED) -> tuple[list[scenes.Scene], dict[str, list[Row]]]:
    """Scenes of the test split, no two alike, and the rows of every task about them."""
    rng = random.Random(f"tasks {seed}")
    targets = Targets(rng)
    drawn: list[scenes.Scene] = []
    rows: dict[str, list[Row]] = {task: [] for task in TASKS}
    while len(drawn) < images:
        scene = scenes.random_scene(rng, "test")
        if any(scene.things == other.things for other in drawn):
            continue
        asked = list(_rows(rng, scene, len(drawn), targets))
        complete = [row for row in asked if row is not None]
        if len(complete) < len(asked):
            continue
        drawn.append(scene)
        for task, row in complete:
            if task != "yesno":
                targets.take(task, row)
            rows[task].append({"id": f"{task}-{len(rows[task]):04d}", **row})
    return drawn, rows


def _rows(
    rng: random.Random, scene: scenes.Scene, number: int, targets: Targets
) -> Iterator[tuple[str, Row] | None]:
    """Two questions of each task about the scene; None where it does not allow one."""
    half = HALVES[number % 2]
    shared = {"image_id": f"{number:03d}", "half": half}
    in_half = number // len(HALVES)
    kind = ASKED["yesno"][in_half % len(ASKED["yesno"])]
    order = ["yes", "no"]
    rng.shuffle(order)
    for answer in order:
        question = _find(rng, scene, kind, True, answer)
        yield None if question is None else ("yesno", {**shared, **_row(question)})
    for position in (2 * in_half, 2 * in_half + 1):
        kind = ASKED["vqa"][position % len(ASKED["vqa"])]
        wanted = targets.next("vqa", kind, half)
        question = _find(rng, scene, kind, False, wanted)
        yield None if question is None else ("vqa", {**shared, **_row(question)})
    for position in (2 * in_half, 2 * in_half + 1):
        kind = ASKED["choice"][position % len(ASKED["choice"])]
        wanted = targets.next("choice", kind, half)
        question = _find(rng, scene, kind, False, wanted)
        if question is None:
            yield None
            continue
        place = targets.asked["choice", kind, half, min(len(question.options), len(LETTERS))]
        yield "choice", {**shared, **_choice(rng, question, place)}


def _find(rng: random.Random, scene: scenes.Scene, kind: str, yesno: bool, answer: str) -> Question | None:
    """A question with this answer, if the scene has one and a few tries find it."""
    for _ in range(30):
        question = questions.ask(rng, scene, kind, yesno)
        if question is not None and question.answer == answer:
            return question
    return None


def _row(question: Question) -> Row:
    return {
        "kind": question.kind,
        "question": question.text,
        "options": list(question.options),
        "answer": question.answer,
    }


def _choice(rng: random.Random, question: Question, place: int) -> Row:
    """The question with options, the right one at `place` (counted round and round)."""
    while True:
        text, options, letter = as_choice(rng, question)
        if letter == LETTERS[place % len(options)]:
            return {"kind": question.kind, "question": text, "options": options, "answer": letter}


def _zip(drawn: list[scenes.Scene]) -> bytes:
    """All scenes as NNN.png; the same scenes, the same bytes."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number, scene in enumerate(drawn):
            image = io.BytesIO()
            scenes.render(scene).save(image, "PNG", optimize=True)
            # A fixed date; PNG is compressed already.
            archive.writestr(zipfile.ZipInfo(f"{number:03d}.png"), image.getvalue())
    return packed.getvalue()


@click.command(help=__doc__)
@click.option("--target", type=click.Path(path_type=Path), default=None, help="Folder to write into.")
@click.option("--images", default=IMAGES, show_default=True)
@click.option("--seed", default=SEED, show_default=True)
def main(target: Path | None, images: int, seed: int) -> None:
    folder = target or shared_path("tasks") / "data"
    drawn, rows = draw(images, seed)
    for task, asked in rows.items():
        (folder / f"{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
        click.echo(f"{task}: {len(asked)} questions")
    (folder / "images.zip").write_bytes(_zip(drawn))


if __name__ == "__main__":
    main()
