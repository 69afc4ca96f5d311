"""What lmms-eval calls for the embedded tasks: images, prompts' scores and their aggregation.

Nothing outside the standard library and Pillow is needed, so the folder works wherever it lies.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

# As in MME, counting and existence are perception; cognition compares several objects.
COGNITION = ("relation", "extreme", "compare", "hop")
COIN = 75.0
"""acc + acc+ in percent of two independent coin flips an image: 50 + 25 (a constant answer has 50 + 0)."""
NUMBERS = {"zero": "0", "none": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5"}

Doc = dict[str, Any]
Item = dict[str, Any]
DATA = Path(__file__).parent / "data"


@cache
def _images() -> dict[str, bytes]:
    with zipfile.ZipFile(DATA / "images.zip") as archive:
        return {Path(name).stem: archive.read(name) for name in archive.namelist()}


@cache
def _kinds(task: str) -> tuple[str, ...]:
    """The kinds of question that the task asks."""
    rows = (DATA / f"{task}.jsonl").read_text().splitlines()
    return tuple(dict.fromkeys(json.loads(row)["kind"] for row in rows))


def image(doc: Doc) -> list[Image.Image]:
    """The document's scene as the only visual."""
    return [Image.open(io.BytesIO(_images()[doc["image_id"]])).convert("RGB")]


def read_yesno(text: str) -> str:
    """ "yes", "no" or "": the answer's first word."""
    word = re.match(r"\W*(\w+)", text.lower())
    return word[1] if word and word[1] in ("yes", "no") else ""


def read_letter(text: str) -> str:
    """The letter an answer such as "B", "(B)" or "B. red" begins with, or ""."""
    match = re.match(r"\W*([A-D])\b", text) or re.fullmatch(r"\W*([a-d])\W*", text)
    return match[1].upper() if match else ""


def read_phrase(text: str) -> str:
    """Lower case, without punctuation and articles, numbers as digits."""
    words = re.sub(r"[^\w\s]", " ", text.lower()).split()
    return " ".join(NUMBERS.get(word, word) for word in words if word not in ("a", "an", "the"))


def score_yesno(doc: Doc, results: list[str]) -> dict[str, Any]:
    scored = _score("yesno", doc, results[0], read_yesno(results[0]))
    pair = {**scored["accuracy"], "question_id": doc["image_id"], "category": doc["kind"]}
    is_cognition = doc["kind"] in COGNITION
    for ability, is_asked in (("perception", not is_cognition), ("cognition", is_cognition)):
        scored[f"{ability}_score"] = pair if is_asked else None
        scored[f"{ability}_guessed"] = {"category": doc["kind"]} if is_asked else None
    return scored


def score_vqa(doc: Doc, results: list[str]) -> dict[str, Any]:
    return _score("vqa", doc, results[0], read_phrase(results[0]))


def score_choice(doc: Doc, results: list[str]) -> dict[str, Any]:
    """The letter or, instead, the option itself."""
    options = [read_phrase(option) for option in doc["options"]]
    phrase = read_phrase(results[0])
    letter = "ABCD"[options.index(phrase)] if phrase in options else read_letter(results[0])
    return _score("choice", doc, results[0], letter, sort=f"{doc['kind']}, {len(options)} options")


def _score(task: str, doc: Doc, text: str, answer: str, sort: str | None = None) -> dict[str, Any]:
    # lmms-eval's samples file drops the document: what a later analysis groups by goes with the score.
    about = {name: doc[name] for name in ("id", "image_id", "kind", "half")}
    item = {"score": float(answer == doc["answer"]), **about}
    asked = {"sort": sort or f"{doc['kind']}: {', '.join(doc['options'])}", "answer": doc["answer"]}
    # Every document carries every metric: lmms-eval takes the number of samples from any one of them.
    kinds = {f"accuracy_{kind}": item if kind == doc["kind"] else None for kind in _kinds(task)}
    return {"accuracy": item, **kinds, "chance": asked, "empty": int(not text.strip())}


def mean_score(items: list[Item | None]) -> float | None:
    """Share of right answers; None if nothing of this kind was asked."""
    scores = [item["score"] for item in items if item is not None]
    return sum(scores) / len(scores) if scores else None


def mean_of_tasks(scores: list[float | None], _sizes: list[int], _weight_by_size: bool) -> float | None:
    """A group's score; a small --limit leaves kinds out of some tasks, which then do not count."""
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if known else None


def chance(items: list[Item]) -> float:
    """Share right when each sort of question gets its most frequent answer, whatever the image."""
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for item in items:
        answers[item["sort"]][item["answer"]] += 1
    return sum(max(counts.values()) for counts in answers.values()) / len(items)


def mme_score(items: list[Item | None]) -> float | None:
    """MME's acc + acc+ in percent, summed over categories; an image with one question is left out."""
    pairs: dict[tuple[str, str], list[float]] = defaultdict(list)
    for item in items:
        if item is not None:
            pairs[item["category"], item["question_id"]].append(item["score"])
    scores: dict[str, list[float]] = defaultdict(list)
    for (category, _), pair in pairs.items():
        if len(pair) == 2:
            scores[category].append(100 * (sum(pair) / 2 + (sum(pair) == 2)))
    return sum(sum(s) / len(s) for s in scores.values()) if scores else None


def mme_guessed(items: list[Item | None]) -> float | None:
    """What coin flips score in the same categories."""
    return COIN * len({item["category"] for item in items if item is not None}) or None


def total(items: list[int]) -> int:
    return sum(items)
