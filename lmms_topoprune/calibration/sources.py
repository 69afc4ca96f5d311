"""Where calibration samples come from: the embedded set, a JSONL file, a folder, a data set."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image, ImageFile

from lmms_topoprune.calibration.samples import Sample
from lmms_topoprune.errors import InputError, MissingExtraError, OptionError, UnreachableError, shown

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
INSTRUCTION_KEYS = ("instruction", "question", "prompt", "text", "query", "input")
IMAGE_KEYS = ("image", "images", "img", "picture")
DESCRIBE = "Describe the image."
# A source with a few broken rows is still a sample of its data; one with many is not.
BROKEN_SHARE = 0.1
SHUFFLE_BUFFER = 1000

# Reads "name" for a prefix such as "task": (rest of the source, count, seed) -> samples.
Reader = Callable[[str, int, int], list[Sample]]


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
    known: dict[str, Reader] = {"hf": _from_hub, **(readers or {})}
    if source == "embedded":
        from lmms_topoprune.embedded.data import calibration_samples

        return calibration_samples(count, seed)
    if colon and prefix in known:
        return known[prefix](rest, count, seed)
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


def take(rows: Iterable[Callable[[], Sample]], count: int, source: str, strict: bool = False) -> list[Sample]:
    """The first `count` samples that can be read; broken ones are skipped, counted and reported."""
    found: list[Sample] = []
    broken: list[str] = []
    for row in rows:
        try:
            found.append(row())
        except (InputError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            if strict:
                raise InputError(f"calibration {source!r}: {error}") from None
            broken.append(str(error))
        if len(found) == count:
            break
        if len(broken) > max(3, count // 10):
            break
    if len(broken) > max(1, BROKEN_SHARE * (len(found) + len(broken))) or not found:
        reason = f"; the first problem: {broken[0]}" if broken else ""
        raise InputError(
            f"calibration {source!r} has {len(found)} usable and {len(broken)} broken samples{reason}"
        )
    if broken:
        log.warning(
            "skipped %d broken calibration samples of %s; the first: %s", len(broken), source, broken[0]
        )
    if len(found) < count:
        log.warning("calibration %s has %d samples; %d were asked for", source, len(found), count)
    return found


def open_image(path: Path) -> Image.Image:
    """An RGB image, read completely; a truncated file is an error."""
    # lmms-eval switches this on for the whole process, and the missing part would be gray.
    before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


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
    return Sample(row["instruction"], image, video)


def _from_hub(name: str, count: int, seed: int) -> list[Sample]:
    """A data set of the Hugging Face hub or a local folder, streamed: "name[@config][:split]"."""
    try:
        from datasets import load_dataset
    except ImportError:
        raise MissingExtraError(
            "calibration 'hf:...' needs the package datasets: pip install datasets"
        ) from None
    name, _, split = name.partition(":")
    name, _, config = name.partition("@")
    try:
        rows = load_dataset(name, config or None, split=split or "train", streaming=True)
        rows = rows.shuffle(seed=seed, buffer_size=SHUFFLE_BUFFER)
        return take((partial(from_row, row) for row in rows), count, f"hf:{name}")
    except InputError:
        raise
    except Exception as error:  # the hub client raises errors of many libraries
        raise UnreachableError(
            f"calibration data set {name!r} cannot be read ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else 'no reason given'}); "
            "pass calibration=embedded or a local file"
        ) from None


def from_row(row: Mapping[str, Any]) -> Sample:
    """A sample out of a data set's row: the first column with a usual name for text and for an image."""
    text = next((row[k] for k in INSTRUCTION_KEYS if isinstance(row.get(k), str)), None)
    image = next((row[k] for k in IMAGE_KEYS if row.get(k) is not None), None)
    if isinstance(image, (list, tuple)):
        image = image[0] if image else None
    if text is None and image is None:
        raise InputError(
            f"a row has the columns {', '.join(sorted(row))}; needed: one of {', '.join(INSTRUCTION_KEYS)} "
            f"or {', '.join(IMAGE_KEYS)}"
        )
    if image is not None and not isinstance(image, Image.Image):
        raise InputError(f"the image of a row is a {type(image).__name__}, not an image")
    return Sample(text or DESCRIBE, image.convert("RGB") if image is not None else None)
