"""A calibration sample: an instruction and what it is about."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from PIL import Image, ImageFile

from lmms_topoprune.calibration.video import FRAMES
from lmms_topoprune.errors import InputError, shown

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


@dataclass(frozen=True)
class Sample:
    """One instruction with at most one image or video.

    Attributes:
        instruction: what the user asks, without image markers.
        image: an RGB image, or None.
        video: a video file for model families that take videos, or None.
    """

    instruction: str
    image: Image.Image | None = None
    video: Path | None = None

    @property
    def kind(self) -> str:
        """What the instruction is about: "image", "video" or "text" for nothing but itself."""
        if self.image is not None:
            return "image"
        return "text" if self.video is None else "video"

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the instruction and of the pixels (or of the video file and the number of frames read).

        Raises:
            InputError: the video file is gone.
        """
        found = hashlib.sha256(self.instruction.encode())
        if self.image is not None:
            found.update(f"\0image {self.image.mode} {self.image.size}".encode())
            found.update(self.image.tobytes())
        if self.video is not None:
            found.update(f"\0video of {FRAMES} frames ".encode())
            try:
                found.update(hashlib.sha256(Path(self.video).read_bytes()).digest())
            except OSError as error:
                name = shown(str(self.video))
                raise InputError(f"calibration video {name} cannot be read: {error.strerror}") from None
        return found.digest()


def fingerprint(samples: Iterable[Sample]) -> str:
    """A short stable hash (16 hex digits) of the samples in their order."""
    found = hashlib.sha256()
    for sample in samples:
        found.update(sample.digest)
    return found.hexdigest()[:16]
