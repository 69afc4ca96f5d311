"""Where calibration samples come from: the embedded set, a JSONL file, a folder, a data set."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from lmms_topoprune.calibration.hub import hub_samples
from lmms_topoprune.calibration.samples import DESCRIBE, Sample, open_image, take
from lmms_topoprune.calibration.video import check_video
from lmms_topoprune.errors import InputError, OptionError, shown

IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}

# Reads "name" for a prefix such as "task": (rest of the source, count, seed, strict) -> samples.
Reader = Callable[[str, int, int, bool], list[Sample]]


def load_samples(
    source: str, count: int, seed: int, *, readers: Mapping[str, Reader] | None = None, strict: bool = False
) -> list[Sample]:
    """Draw up to `count` samples; the same seed draws the same ones.

    Args:
        source: "embedded", a JSONL file, a folder of images, "hf:name[@config][:split]", or
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
        if path.is_file():
            return take(_from_jsonl(path, seed), count, source, strict)
    except (OSError, RuntimeError) as error:  # not readable, too long for a path, a user that does not exist
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"calibration is {shown(source)}, which cannot be read: {reason}") from None
    raise OptionError(
        f"calibration is {shown(source)}; allowed: embedded, a JSONL file, a folder of images, "
        f"{', '.join(f'{name}:NAME' for name in known)}"
    )


def _from_folder(folder: Path, seed: int) -> Iterator[Callable[[], Sample]]:
    """Every image below a folder, with one instruction for all."""
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    random.Random(seed).shuffle(paths)
    return (partial(_described, path) for path in paths)


def _described(path: Path) -> Sample:
    return Sample(DESCRIBE, open_image(path))


def _from_jsonl(path: Path, seed: int) -> Iterator[Callable[[], Sample]]:
    """One object a line: "instruction", and "image" or "video", a path beside the file, if it has one."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"calibration {str(path)!r} is not a JSONL file; its text is not UTF-8") from None
    lines = [(i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
    random.Random(seed).shuffle(lines)
    return (partial(_from_line, path, i, line) for i, line in lines)


def _from_line(path: Path, number: int, text: str) -> Sample:
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"line {number} of {path.name} is not JSON: {error.msg}") from None
    if not isinstance(row, dict) or not isinstance(row.get("instruction"), str):
        raise InputError(f"line {number} of {path.name} has no text under 'instruction'")
    for key in ("image", "video"):
        if not isinstance(row.get(key), (str, type(None))):
            raise InputError(f"line {number} of {path.name} has no path under {key!r}")
    image = open_image(path.parent / row["image"]) if row.get("image") else None
    video = path.parent / row["video"] if row.get("video") else None
    if video is not None and not video.is_file():
        raise InputError(f"line {number} of {path.name}: there is no video {row['video']!r}")
    if video is not None:
        check_video(video)
    return Sample(row["instruction"], image, video)
