"""Documents that the dense model answers right and a pruned one wrong, with what each of them said."""

from __future__ import annotations

import base64
import binascii
import io
import random
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from lmms_topoprune._util.packaged import shared_path
from lmms_topoprune.errors import InputError
from lmms_topoprune.report.groups import Group
from lmms_topoprune.results.reading import Run
from lmms_topoprune.results.sample_files import read_samples
from lmms_topoprune.results.scores import PREFERRED

EDGE = 320
"""Pixels of a picture's longer side."""
LARGEST = 2**25
"""Bytes of a file that is looked at."""


def picture(row: Mapping[str, Any]) -> str:
    """The document's picture, small, as a data address: what lmms-eval kept, or the embedded tasks' own."""
    kept = [_kept(source) for source in row.get("input_media") or () if isinstance(source, str)]
    raw = next(filter(None, [*kept, _embedded(row)]), None)
    if raw is None:
        return ""
    try:
        with Image.open(io.BytesIO(raw)) as opened:
            small = opened.convert("RGB")
        small.thumbnail((EDGE, EDGE))
        out = io.BytesIO()
        small.save(out, "WEBP", quality=80)
    except (OSError, ValueError, Image.DecompressionBombError):
        return ""
    return f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode()}"


def _kept(source: str) -> bytes | None:
    """The bytes of a data address or a local file; nothing is asked for over a network."""
    try:
        if source.startswith("data:image/") and ";base64," in source:
            return base64.b64decode(source.partition(";base64,")[2], validate=True)
        path = Path(source.removeprefix("file://"))
        return path.read_bytes() if path.is_file() and path.stat().st_size <= LARGEST else None
    except (OSError, ValueError, binascii.Error):
        return None


def _embedded(row: Mapping[str, Any]) -> bytes | None:
    """The picture of a document of this package's own tasks."""
    about = row.get("accuracy")
    return _pictures().get(str(about.get("image_id"))) if isinstance(about, Mapping) else None


@cache
def _pictures() -> dict[str, bytes]:
    with zipfile.ZipFile(shared_path("tasks") / "data" / "images.zip") as archive:
        return {Path(name).stem: archive.read(name) for name in archive.namelist()}


SHOWN = 24
LOST = 0.5
"""Points of a document's score between right and wrong."""
LONG = 600
"""Characters of a text that are shown."""


@dataclass(frozen=True)
class Answer:
    """What one run said: `lost` if it is wrong where the dense model is right."""

    criterion: str
    dropped: int
    said: str
    lost: bool


@dataclass(frozen=True)
class Document:
    """A document with its answers.

    Attributes:
        task, name: which it is.
        question, target, dense: texts.
        picture: a data address; empty without one.
        answers: one for each criterion and number of dropped layers.
    """

    task: str
    name: str
    question: str
    target: str
    dense: str
    picture: str
    answers: tuple[Answer, ...]

    @property
    def counts(self) -> list[int]:
        return sorted({answer.dropped for answer in self.answers})

    @property
    def table(self) -> dict[str, list[Answer | None]]:
        """Criterion -> an answer for each of `counts`."""
        cells = {(answer.criterion, answer.dropped): answer for answer in self.answers}
        criteria = dict.fromkeys(answer.criterion for answer in self.answers)
        return {name: [cells.get((name, count)) for count in self.counts] for name in criteria}

    @property
    def runs_lost(self) -> list[str]:
        return [f"{answer.criterion}, {answer.dropped} layers" for answer in self.answers if answer.lost]


@dataclass(frozen=True)
class WrongAnswers:
    """A sample of the documents, and how many there are."""

    documents: tuple[Document, ...]
    lost: int
    right: int

    @property
    def runs(self) -> list[str]:
        return list(dict.fromkeys(name for document in self.documents for name in document.runs_lost))


def wrong_answers(
    dense: Run, runs: Mapping[str, Run], groups: Sequence[Group], count: int = SHOWN, seed: int = 0
) -> WrongAnswers | None:
    """Documents drawn at random from those that the dense model has right and some pruned run wrong.

    Args:
        dense: the dense run.
        runs: label -> run.
        groups: the pruned runs; of several seeds the first is shown.
        count: how many documents are drawn, evenly from the tasks.
        seed: of the draw.

    Returns:
        None where no answer was kept or none was lost.
    """
    shown = [(group, runs[label]) for group in groups for label in [*group.runs][:1] if label in runs]
    found: list[tuple[str, list[Document]]] = []
    right = lost = 0
    for task in dense.tasks:
        try:
            table = _Samples.of(dense, task)
            others = [(group, _Samples.of(run, task)) for group, run in shown if task in run.tasks]
        except InputError:
            continue  # no samples are kept beside the results
        correct = [name for name, score in table.scores.items() if score >= LOST]
        failed = [n for n in correct if any(other.lost(n, table) for _, other in others)]
        right, lost = right + len(correct), lost + len(failed)
        random.Random(f"{seed} {task}").shuffle(failed)
        found.append((task, [_document(task, name, table, others) for name in failed[:count]]))
    documents = _in_turn([own for _, own in found], count)
    return WrongAnswers(tuple(documents), lost, right) if documents else None


def _in_turn(tasks: Sequence[list[Document]], count: int) -> list[Document]:
    """One document of each task in turn."""
    return [own[i] for i in range(count) for own in tasks if i < len(own)][:count]


@dataclass(frozen=True)
class _Samples:
    """The rows of a task by the names of their documents."""

    rows: Mapping[str, Mapping[str, Any]]
    scores: Mapping[str, float]

    @classmethod
    def of(cls, run: Run, task: str) -> _Samples:
        """Of a task, or of one of its filters; scored as the comparison does, but by question, not image."""
        units = run.tasks[task]
        of = units.task or task
        # lmms-eval logs a document once for every filter, not always with its name.
        own = (None, task.removeprefix(f"{of} [").removesuffix("]")) if task != of else ()
        logged = [row for row in read_samples(run.path, of) if not own or row.get("filter") in own]
        rows = {str(row["doc_id"]): row for row in logged}
        if set(units.units) <= set(rows) and not units.own_scale:
            return cls(rows, dict(zip(units.units, units.scores.tolist(), strict=True)))
        scores = {name: _score(row) for name, row in rows.items()}
        return cls(rows, {name: score for name, score in scores.items() if score is not None})

    def lost(self, name: str, dense: _Samples) -> bool:
        return name in self.scores and dense.scores[name] - self.scores[name] >= LOST

    def said(self, name: str) -> str:
        return _text(self.rows[name].get("filtered_resps")) if name in self.rows else "–"


def _score(row: Mapping[str, Any]) -> float | None:
    """The document's score, of the first metric that has one for it."""
    scored = [value for value in row.values() if isinstance(value, Mapping) and "score" in value]
    for value in (*map(row.get, PREFERRED), *scored):
        number = value.get("score") if isinstance(value, Mapping) else value
        if isinstance(number, (bool, int, float)):
            return float(number)
    return None


def _document(task: str, name: str, dense: _Samples, others: Sequence[tuple[Group, _Samples]]) -> Document:
    row = dense.rows[name]
    return Document(
        task,
        name,
        _text(row.get("input")),
        _text(row.get("target")),
        dense.said(name),
        picture(row),
        tuple(
            Answer(group.criterion, group.dropped, own.said(name), own.lost(name, dense))
            for group, own in others
        ),
    )


def _text(value: Any) -> str:
    """An answer or a question in one text, cut where it gets long; messages lose their frames."""
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, list):
        value = " | ".join(_text(part) for part in value)
    elif isinstance(value, Mapping):
        value = _text(value["content"]) if "content" in value else _text(value.get("text", ""))
    text = "–" if value is None else str(value).strip()
    return text if len(text) <= LONG else f"{text[:LONG]} …"
