"""MMBench's questions and prompts (Liu et al. 2023, arXiv 2307.06281), one score a document and no judge."""

from __future__ import annotations

import re
from typing import Any

from lmms_eval.tasks.mmbench import en_utils

LETTERS = "ABCDE"

Doc = dict[str, Any]


def options(doc: Doc) -> dict[str, str]:
    """Letter -> text of the options that the document has; absent ones are "nan" or empty."""
    found = {letter: str(doc.get(letter) or "nan") for letter in LETTERS}
    return {letter: text for letter, text in found.items() if text != "nan"}


def read_letter(text: str, choices: dict[str, str]) -> str:
    """The option that an answer such as "B", "(B)", "B. red", "The answer is B" or "red" names, or ""."""
    named = [letter for letter, choice in choices.items() if text.strip().lower() == choice.strip().lower()]
    match = re.match(r"\W*([A-E])(?!\w)", text) or re.search(r"\banswer is \W*([A-E])(?!\w)", text)
    letter = named[0] if named else match[1] if match else ""
    return letter if letter in choices else ""


def score(doc: Doc, results: list[str]) -> dict[str, Any]:
    """Whether the right option is named; with the category for a later analysis."""
    answer = read_letter(results[0], options(doc))
    return {"accuracy": {"score": float(answer == doc["answer"]), "category": doc["category"]}}


def mean(items: list[Doc]) -> float:
    return sum(item["score"] for item in items) / len(items)


visual = en_utils.mmbench_doc_to_visual
prompt = en_utils.mmbench_doc_to_text
