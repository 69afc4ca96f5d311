"""A calibration sample: an instruction and what it is about."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from PIL import Image

from lmms_topoprune._util import files
from lmms_topoprune.calibration.media_files import FRAMES, StoredImage
from lmms_topoprune.errors import InputError, shown


@dataclass(frozen=True)
class Sample:
    """One instruction with at most one image or video.

    Attributes:
        instruction: what the user asks, without image markers.
        image: an RGB image, one that is read when it is needed, or None.
        video: a video file for model families that take videos, or None.
    """

    instruction: str
    image: Image.Image | StoredImage | None = None
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
        return self._hashed(self.image.read() if isinstance(self.image, StoredImage) else self.image)

    def pixels(self) -> Image.Image | None:
        """The image, read now if it is not kept.

        Raises:
            InputError: it cannot be read any more, or has changed since the sample was drawn.
        """
        if not isinstance(self.image, StoredImage):
            return self.image
        try:
            image = self.image.read()
        except (OSError, ValueError, SyntaxError) as error:
            raise InputError(f"an image of the calibration set cannot be read again: {error}") from None
        if self._hashed(image) != self.digest:
            raise InputError("an image of the calibration set changed while it was used; start again")
        return image

    def stored(self, image: StoredImage) -> Sample:
        """The same sample, of which only the digest of the pixels is kept."""
        other = replace(self, image=image)
        other.__dict__["digest"] = self.digest
        return other

    def _hashed(self, image: Image.Image | None) -> bytes:
        found = hashlib.sha256(self.instruction.encode())
        if image is not None:
            found.update(f"\0image {image.mode} {image.size}".encode())
            found.update(image.tobytes())
        if self.video is not None:
            found.update(f"\0video of {FRAMES} frames ".encode())
            try:
                found.update(files.sha256(self.video))
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
