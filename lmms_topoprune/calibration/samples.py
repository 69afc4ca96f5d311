"""A calibration sample: an instruction and what it is about."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from PIL import Image

from lmms_topoprune.calibration.video import FRAMES
from lmms_topoprune.errors import InputError, shown


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
