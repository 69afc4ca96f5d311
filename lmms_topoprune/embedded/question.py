"""One question with a one-word answer, and its multiple-choice form."""

from __future__ import annotations

import random
from dataclasses import dataclass

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
