"""Rows of a calibration source: some may be broken, and are skipped, counted and reported."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageFile

from lmms_topoprune.calibration.samples import Sample
from lmms_topoprune.errors import InputError

log = logging.getLogger(__name__)

DESCRIBE = "Describe the image."
# A source with a few broken rows is still a sample of its data; one with many is not.
BROKEN_SHARE = 0.1


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
    with whole_images(), Image.open(path) as image:
        return image.convert("RGB")


@contextmanager
def whole_images() -> Iterator[None]:
    """Inside, a truncated image is an error."""
    # lmms-eval switches this on for the whole process, and the missing part would be gray.
    before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before
