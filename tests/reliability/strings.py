"""Passing fuzzed model_args the way lmms-eval does, and telling how each ended."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import fuzzing
from scene import Scene

from lmms_topoprune.errors import TopopruneError
from lmms_topoprune.harness.wrapper import PrunedModel

# What a sentence must not hold: signs of another library's error, or of a Python object.
LEAKS = re.compile(r"Traceback|<class |<function | object at 0x|\n")
LONGEST = 2000


class Loaded(BaseException):
    """Everything that is checked before the model is loaded was right."""


@contextlib.contextmanager
def nothing_loaded() -> Iterator[None]:
    """Within this block a run ends where its model would be loaded."""

    def stop(*_: Any, **__: Any) -> None:
        raise Loaded

    with patch.object(PrunedModel, "_load", stop):
        yield


@dataclass
class Tally:
    """How strings ended.

    Attributes:
        counts: "run" and "sentence" -> how many.
        wrong: what ended in neither way, for people.
        sentences: every one, with its string.
    """

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    sentences: list[tuple[str, str]] = field(default_factory=list)

    def add(self, scene: Scene, model: str, text: str) -> None:
        """Pass one string, and count."""
        try:
            scene.create(text, model)
            self.counts["run"] += 1
        except Loaded:
            self.counts["run"] += 1
        except TopopruneError as error:
            self.counts["sentence"] += 1
            self.sentences.append((text, str(error)))
            if flaw := flaw_of(str(error), text):
                self.wrong.append(f"{model} {text!r:.300}: {flaw}: {error!s:.300}")
        except Exception as error:
            self.wrong.append(f"{model} {text!r:.300}: {type(error).__name__}: {error!s:.300}")


def flaw_of(sentence: str, text: str) -> str:
    """What is wrong with a sentence about a string; empty if it is one line that names part of it."""
    if LEAKS.search(sentence):
        return "more than a sentence"
    if not 0 < len(sentence) <= LONGEST:
        return "of no sensible length"
    parts = (part.strip() for part in re.split(r"[,=:]", text))
    return "" if any(part and part in sentence for part in parts) else "names nothing of the string"


def tally(scene: Scene, count: int, seed: int, first: int = 0) -> Tally:
    """Pass the strings number first..count of that seed."""
    world = fuzzing.World.make(scene.model, scene.folder / "files")
    found = Tally()
    for model, text in fuzzing.strings(world, count, seed)[first:]:
        found.add(scene, model, text)
    return found
