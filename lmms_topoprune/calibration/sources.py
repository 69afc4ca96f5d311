"""Where calibration samples come from: the embedded set, a file of rows, a folder, a data set."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from lmms_topoprune._util import files
from lmms_topoprune.calibration.hub import hub_samples
from lmms_topoprune.calibration.media_files import Source, check_video, inline_image, open_image
from lmms_topoprune.calibration.rows import DESCRIBE, TEXTS, TURNS, Question, Read, take
from lmms_topoprune.calibration.samples import Sample
from lmms_topoprune.errors import InputError, OptionError, shown

IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
COMPANIONS = {"__MACOSX", "@eaDir"}
LONGEST = 2**26  # bytes of a line, which may hold an image in base64
BOM = b"\xef\xbb\xbf"
BETWEEN = re.compile(r"[\s,]*")

# Reads "name" for a prefix such as "task": (rest of the source, count, seed, strict) -> samples.
Reader = Callable[[str, int, int, bool], list[Sample]]


def load_samples(
    source: str, count: int, seed: int, *, readers: Mapping[str, Reader] | None = None, strict: bool = False
) -> list[Sample]:
    """Draw up to `count` samples; the same seed draws the same ones.

    Args:
        source: "embedded", a JSONL file or a JSON list, a folder of images, "hf:name[@config][:split]", or
            "prefix:..." for one of `readers`.
        count: how many; a source with fewer gives all it has.
        seed: which ones, and in what order.
        readers: further prefixes, such as "task" for lmms-eval's tasks.
        strict: a broken row is an error, not skipped.

    Raises:
        OptionError: no such source.
        InputError: the source is empty, or more than a tenth of it is broken.
        UnreachableError: the data set cannot be reached.
    """
    prefix, colon, rest = source.partition(":")
    known: dict[str, Reader] = {"hf": hub_samples, **(readers or {})}
    if source == "embedded":
        from lmms_topoprune.embedded.data import calibration_pairs

        return [Sample(text, image) for text, image in calibration_pairs(count, seed)]
    if colon and prefix in known:
        return known[prefix](rest, count, seed, strict)
    try:
        path = Path(source).expanduser()
        if source and path.is_dir():
            return take(_from_folder(path, seed), count, source, strict)
        files.check_regular(path)
        if path.is_file():
            return take(_from_file(path, seed), count, source, strict)
    except (OSError, RuntimeError) as error:  # not readable, too long for a path, a user that does not exist
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"calibration is {shown(source)}, which cannot be read: {reason}") from None
    raise OptionError(
        f"calibration is {shown(source)}; allowed: embedded, a JSONL file, a folder of images, "
        f"{', '.join(f'{name}:NAME' for name in known)}"
    )


def _from_folder(folder: Path, seed: int) -> Iterator[Callable[[], Read]]:
    """Every image below a folder, with one instruction for all."""
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and _wanted(p, folder))
    random.Random(seed).shuffle(paths)
    return (partial(Read.of, DESCRIBE, partial(open_image, path)) for path in paths)


def _wanted(path: Path, folder: Path) -> bool:
    """Not hidden, and no companion that a system put beside a picture."""
    below = path.relative_to(folder)
    return not files.is_hidden(below) and COMPANIONS.isdisjoint(below.parts)


def _from_file(path: Path, seed: int) -> Iterator[Callable[[], Read]]:
    """One object a line, or one JSON list of objects."""
    rows = _elements(path) or _lines(path)
    random.Random(seed).shuffle(rows)
    return (partial(_from_text, path, *row) for row in rows)


Place = tuple[int, str | int]
"""The number of a row, and its text, or where its line starts."""


def _lines(path: Path) -> list[Place]:
    """The lines that are not blank. They are not kept: a file may have millions.

    Raises:
        InputError: the file is no text, or has a line without end.
    """
    found: list[Place] = []
    with path.open("rb") as file:
        start = number = 0
        while line := file.readline(LONGEST + 1):
            number += 1
            if len(line) > LONGEST:
                raise InputError(f"line {number} of {path.name} has more than {LONGEST} bytes")
            try:
                blank = not line.decode().strip("\ufeff \t\r\n")
            except UnicodeDecodeError:
                raise InputError(
                    f"calibration {str(path)!r} is not a JSONL file; its text is not UTF-8"
                ) from None
            if not blank:
                found.append((number, start))
            start += len(line)
    return found


def _elements(path: Path) -> list[Place]:
    """The elements of a JSON list as text; none for a file that holds something else."""
    with path.open("rb") as file:
        if not file.read(1024).removeprefix(BOM).lstrip().startswith(b"["):
            return []
    found: list[Place] = []
    try:
        text = files.read_text(path, "utf-8-sig")
        decoder, at = json.JSONDecoder(), text.index("[") + 1
        while at < len(text):
            at = BETWEEN.match(text, at).end()  # type: ignore[union-attr]
            if text.startswith("]", at):
                return found
            _, end = decoder.raw_decode(text, at)
            found.append((len(found) + 1, text[at:end]))
            at = end
    except (ValueError, RecursionError):
        pass
    return []


def _from_text(path: Path, number: int, row: str | int) -> Read:
    where = f"line {number} of {path.name}" if isinstance(row, int) else f"row {number} of {path.name}"
    if isinstance(row, int):
        with path.open("rb") as file:
            file.seek(row)
            row = file.readline(LONGEST).removeprefix(BOM).decode()
    try:
        value = json.loads(row)
    except RecursionError:
        raise InputError(f"{where} is nested too deeply") from None
    except ValueError as error:
        raise InputError(f"{where} is not JSON: {getattr(error, 'msg', error)}") from None
    try:
        return _from_row(path.parent, value)
    except (InputError, OSError, ValueError, SyntaxError) as error:
        raise InputError(f"{where}: {error}") from None


def _from_row(folder: Path, row: Any) -> Read:
    """A row, whose images and videos lie below the folder of its file."""
    asked = Question.of(row) if isinstance(row, dict) else Question(None)
    if asked.text is None:
        raise InputError(f"it has no text under {', '.join(map(repr, (*TEXTS, *TURNS)))}")
    for kind, places in (("image", asked.images), ("video", asked.videos)):
        if not all(isinstance(place, str) for place in places):
            raise InputError(f"it has no path under {kind!r}")
    image = partial(open_image, _source(folder, asked.images[0])) if asked.images else None
    video = folder / asked.videos[0].removeprefix("file://") if asked.videos and image is None else None
    if video is not None:
        if not video.is_file():
            raise InputError(f"there is no video {asked.videos[0]!r}")
        check_video(video)
    unused = max(0, len(asked.images) + len(asked.videos) - 1)
    return Read.of(asked.text, image, video, unused)


def _source(folder: Path, place: str) -> Source:
    if place.startswith("data:"):
        return inline_image(place)
    if place.startswith(("http:", "https:")):
        raise InputError(f"the image {shown(place)} is on the web; allowed: a file beside it, or data:")
    return folder / place.removeprefix("file://")
