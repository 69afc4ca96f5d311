"""From what lmms-eval logs of a document to the document's score, task family by task family.

lmms-eval's process_results leaves a number for some tasks, an object with a score for others, and for many
only the parsed answer beside the right one, from which its aggregation makes the score. `FAMILIES` says how
that is done a document; the rules are those of the tasks' own aggregations, which the tests compare.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmms_topoprune.results.sample_files import Column, field, has_fields, objects

Floats = NDArray[np.float64]
SCORE_FIELDS = ("score", "is_correct", "correct", "hit", "acc", "gpt_score", "true_false", "accuracy")
"""Fields of a logged object that are its score, in order of preference."""
NOT_A_SCORE = ("naturalbench",)
"""Metrics whose `score` is the answer that was read, not whether it is right."""


@dataclass(frozen=True)
class Family:
    """Metrics that are scored alike.

    Attributes:
        metric: pattern of their names.
        fields: what every logged object has.
        score: object -> score of the document.
        how: what is done, in words.
    """

    metric: str
    fields: tuple[str, ...]
    score: Callable[[Mapping[str, Any]], float]
    how: str


def numbers(metric: str, column: Column, score_key: str = "score") -> tuple[Floats, str] | None:
    """Scores (R,) of a metric's rows, nan where a row has none, and how they were had; None if none can be.

    Args:
        metric: its name.
        column: what was logged, one value a row.
        score_key: the field that the task declares as its score.
    """
    if isinstance(column, np.ndarray):
        return (column, "as logged") if np.isfinite(column).any() else None
    if not has_fields(column):
        return None
    if not metric.startswith(NOT_A_SCORE):
        for name in dict.fromkeys((score_key, *SCORE_FIELDS)):
            found = field(column, name)
            if isinstance(found, np.ndarray) and np.isfinite(found).any():
                return found, f"its {name}"
    return _by_family(metric, objects(column))


def _by_family(metric: str, values: Sequence[Any]) -> tuple[Floats, str] | None:
    known = [value for value in values if value is not None]
    if not known or not all(isinstance(value, Mapping) for value in known):
        return None
    if (measure := re.search(r"(CIDEr|ROUGE_L|Bleu_[1-4])$", metric)) and _all_have(
        known, ("answer", "pred")
    ):
        with suppress(AssertionError, ArithmeticError, LookupError):  # an image that has no right caption
            return _captions(measure[1], values), f"{measure[1]} of plain tokens"
        return None
    for family in FAMILIES:
        if re.fullmatch(family.metric, metric) and _all_have(known, family.fields):
            try:
                found = [np.nan if value is None else float(family.score(value)) for value in values]
            except (TypeError, ValueError, AttributeError, LookupError):
                return None
            return np.array(found), family.how
    return None


def _all_have(values: Sequence[Mapping[str, Any]], names: Sequence[str]) -> bool:
    return all(name in value for value in values for name in names)


def parsed_answer(value: Mapping[str, Any]) -> bool:
    """MMMU and its like: any of the parsed answers is the right one.

    Multiple choice: the same letter. Open questions: a number that is among the right ones, or a text that
    holds one of them.
    """
    right = value["answer"] if isinstance(value["answer"], list) else [value["answer"]]
    parsed = value["parsed_pred"]
    tries = parsed if isinstance(parsed, list) else [parsed]
    if value.get("question_type") in (None, "multiple-choice"):
        return parsed == value["answer"] or any(answer in right for answer in tries)
    flat = [part for answer in tries for part in (answer if isinstance(answer, list) else [answer])]
    wanted = [part for answer in right for part in _normal(str(answer))]
    return any(_found(answer, wanted) for answer in flat)


def _found(answer: Any, wanted: Sequence[str | float]) -> bool:
    if isinstance(answer, str):
        return any(isinstance(text, str) and text in answer for text in wanted)
    return answer in wanted


def _normal(text: str) -> list[str | float]:
    """A right answer as MMMU reads it: a number to two digits, or lower case, alone letters with a blank."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
        return [f" {text}", f"{text} "] if len(text) == 1 else [text]


def chosen_letter(value: Mapping[str, Any]) -> bool:
    """SEED-Bench: the answer's first letter is the right one."""
    return str(value["pred"]).strip().lower() == str(value["answer"]).strip().lower()


def chosen_option(value: Mapping[str, Any]) -> bool:
    """MMBench without a judge: the only option letter in the answer, or the only option it holds."""
    said = str(value["prediction"])
    options = {c: str(value[c]) for c in "ABCDE" if str(value.get(c, "nan")) not in ("nan", "None", "")}
    words = [word.strip("().,:") for word in said.split()]
    letters = {word for word in words if word in options}
    if len(letters) == 1 and not (letters == {"A"} and len(words) > 3):
        return letters == {str(value["answer"])}
    texts = {c for c, text in options.items() if text.lower() in said.lower()}
    return texts == {str(value["answer"])}


def same_index(value: Mapping[str, Any]) -> bool:
    return str(value["pred"]) == str(value["ground_truth"])


def anls(value: Mapping[str, Any]) -> float:
    """Average normalized Levenshtein similarity with threshold 1/2 (Biten et al., ICCV 2019, eq. 1)."""
    right = value["answer"] if isinstance(value["answer"], list) else [value["answer"]]
    best = max((_similarity(str(text), str(value["pred_answer"])) for text in right), default=0.0)
    return best if best >= 0.5 else 0.0


def _similarity(one: str, other: str) -> float:
    one, other = (" ".join(text.strip().lower().split()) for text in (one, other))
    longest = max(len(one), len(other))
    return 1 - _edits(one, other) / longest if longest else 1.0


def _edits(one: str, other: str) -> int:
    """Levenshtein distance, a row at a time."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        above, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (a != b))
    return row[-1]


def overlap(value: Mapping[str, Any]) -> float:
    """Intersection over union of two boxes (left, top, right, bottom)."""
    (a, b, c, d), (e, f, g, h) = value["bbox"], value["pred"]
    both = max(0.0, min(c, g) - max(a, e)) * max(0.0, min(d, h) - max(b, f))
    union = (c - a) * (d - b) + (g - e) * (h - f) - both
    return both / union if union > 0 else 0.0


def relative_accuracy(value: Mapping[str, Any]) -> float:
    """VSI-Bench: accuracy of a choice, or mean relative accuracy of a number."""
    return float(next(v for k, v in value.items() if k == "accuracy" or k.startswith("MRA:")))


FAMILIES = (
    Family(r"(j|c)?mmmu.*", ("answer", "parsed_pred"), parsed_answer, "parsed answer against the right one"),
    Family(r"seed_.*", ("answer", "pred"), chosen_letter, "chosen letter"),
    Family(
        r"gpt_eval_score|submission", ("answer", "prediction", "A"), chosen_option, "chosen option, no judge"
    ),
    Family(r"score", ("pred", "ground_truth"), same_index, "chosen option"),
    Family(r".*anls", ("answer", "pred_answer"), anls, "ANLS"),
    Family(r".*IoU", ("bbox", "pred"), overlap, "overlap of the boxes"),
    *(
        Family(
            rf".*ACC@{limit}",
            ("bbox", "pred"),
            lambda value, limit=limit: float(overlap(value) >= limit),  # type: ignore[misc]
            f"boxes that overlap by {limit}",
        )
        for limit in (0.1, 0.3, 0.5, 0.7, 0.9)
    ),
    Family(
        r"vsibench.*", ("question_type", "ground_truth"), relative_accuracy, "accuracy or relative accuracy"
    ),
)


def _captions(measure: str, values: Sequence[Any]) -> Floats:
    """Every caption's part of a corpus measure, by the captioning challenge's own code on plain words."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    rows = [i for i, value in enumerate(values) if value is not None]
    right = {i: [_plain(text) for text in _listed(values[i]["answer"])] for i in rows}
    said = {i: [_plain(str(values[i]["pred"]))] for i in rows}
    found = np.full(len(values), np.nan)
    if measure == "CIDEr":
        found[rows] = Cider().compute_score(right, said)[1]
    elif measure == "ROUGE_L":
        found[rows] = Rouge().compute_score(right, said)[1]
    else:
        order = int(measure[-1])
        found[rows] = Bleu(order).compute_score(right, said, verbose=0)[1][order - 1]
    return found


def _listed(value: Any) -> list[str]:
    return [str(text) for text in value] if isinstance(value, list) else [str(value)]


def _plain(text: str) -> str:
    """Lower case without punctuation: the tokenizer of the challenge needs Java."""
    return " ".join(re.findall(r"[a-z0-9']+", text.lower())) or "."
