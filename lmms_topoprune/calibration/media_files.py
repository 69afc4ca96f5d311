"""Images and videos of a calibration set.

Images are read whole, upright and in bounds, and again whenever a batch needs them; of videos, frames spread
evenly.
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps

from lmms_topoprune._util import files
from lmms_topoprune._util.signals import errors_kept
from lmms_topoprune.compat.videos import UNREADABLE
from lmms_topoprune.errors import InputError, shown

PIXELS = 2**22
"""Larger images are scaled down as they are read: lmms-eval's wrappers let no processor take more."""
FULL_SIZE = 2**20
"""Images of no more pixels are what a processor gets, whatever it takes of them."""
REDUCING_GAP = 3.0
"""An image stays so many times as wide and high as what is taken of it: scaling on from there cannot be told
from scaling at once (Pillow's manual on `reducing_gap`)."""
DECODED = 2**26
"""Pixels that are decoded at most; a JPEG file can be decoded smaller than it is, others cannot."""

Source = Path | bytes


@dataclass(frozen=True)
class StoredImage:
    """An image that is read when it is needed, and not kept.

    Attributes:
        read: gives the RGB image.
        size: width and height of what it gives.
    """

    read: Callable[[], Image.Image]
    size: tuple[int, int]


def open_image(source: Source) -> Image.Image:
    """An upright RGB image of at most PIXELS pixels from a file or its bytes.

    Raises:
        OSError: the file cannot be read, is a pipe or a device, or its image is cut short.
        InputError: it is broken or has too many pixels.
    """
    if isinstance(source, Path):
        files.check_regular(source)
    try:
        with whole_images(), Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            return bounded(image, upright=True)
    except (InputError, OSError):
        raise
    except Exception as error:  # decoders fail on hostile bytes in any way
        raise InputError(f"an image is broken ({type(error).__name__}: {error})") from None


def bounded(image: Image.Image, upright: bool = False) -> Image.Image:
    """The image in RGB, scaled down to PIXELS if it is larger, and on request turned as its EXIF data say.

    Raises:
        InputError: it has too many pixels to be decoded.
        OSError: it is broken.
    """
    target = _target(image)
    if target is not None and not image.info.get("progressive"):
        image.draft("RGB", target)  # of a JPEG file no more is decoded than a half, a quarter or an eighth
    if image.width * image.height > DECODED:
        raise InputError(f"an image has {image.width} x {image.height} pixels; allowed: {DECODED} in all")
    turned = (_upright(image) if upright else image).convert("RGB")
    target = _target(turned)
    return turned if target is None else turned.resize(target, Image.Resampling.BICUBIC, reducing_gap=2)


def processor_pixels(process: Callable[[Image.Image], Mapping[str, Any]]) -> int:
    """How many pixels a processor hands on of an image at most, tiles and patches counted; PIXELS if unknown.

    It is asked by blank images as large as any here: what the settings are called differs between families.
    """
    found = 0
    with errors_kept() as asking:
        for size in ((2048, 2048), (4096, 1024)):
            made = process(Image.new("RGB", size))
            found = max(found, sum(_intensities(value) for value in made.values()) // 3)
    return PIXELS if asking.error else found or PIXELS


def _intensities(made: Any) -> int:
    """How many floating-point numbers are in a tensor, or in lists of tensors, such as crops of two sizes."""
    if isinstance(made, list | tuple):
        return sum(map(_intensities, made))
    return made.numel() if hasattr(made, "numel") and made.is_floating_point() else 0


def downscaled(image: Image.Image, most: Callable[[], int]) -> Image.Image:
    """The image, scaled down if it is large and a processor takes far less of it.

    Args:
        image: an RGB image.
        most: the pixels that the processor hands on of an image at most; asked for large images only.
    """
    pixels = image.width * image.height
    if pixels <= FULL_SIZE:
        return image
    share = max(REDUCING_GAP * most() ** 0.5 / min(image.size), (FULL_SIZE / pixels) ** 0.5)
    if share >= 1:
        return image
    width, height = (round(side * share) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=REDUCING_GAP)


def _target(image: Image.Image) -> tuple[int, int] | None:
    """The size to scale down to; None for an image that is small enough."""
    share = (PIXELS / max(1, image.width * image.height)) ** 0.5
    return None if share >= 1 else (max(1, int(image.width * share)), max(1, int(image.height * share)))


def _upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF data say, which may be malformed in any way and then say nothing."""
    image.load()
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        return ImageOps.exif_transpose(image) if turned else image
    except Exception:
        return image


def inline_image(address: str) -> bytes:
    """The bytes of an image that stands in the row itself, as "data:image/png;base64,...".

    Raises:
        InputError: they are not in base64.
    """
    try:
        return base64.b64decode(address.partition(",")[2], validate=True)
    except (binascii.Error, ValueError):
        raise InputError(f"the image {shown(address[:60])} is not in base64") from None


@contextmanager
def whole_images() -> Iterator[None]:
    """Inside, a truncated image is an error."""
    # lmms-eval switches this on for the whole process, and the missing part would be gray.
    before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


# As many as lmms-eval's wrappers take at least; a calibration set needs many videos, not long ones.
FRAMES = 8


def check_video(path: Path) -> None:
    """Read the first frame, which tells most broken files from whole ones at little cost.

    Raises:
        InputError: it cannot be read.
    """
    try:
        files.check_regular(Path(path))
        with av.open(str(path)) as container:
            next(container.decode(video=0))
    except UNREADABLE as error:
        raise _unreadable(path, error) from None


def read_frames(path: Path, count: int = FRAMES) -> tuple[np.ndarray, dict[str, object]]:
    """Frames spread evenly over a video, and what processors want to know about it.

    Returns:
        uint8 (count, H, W, 3), RGB; a video with fewer frames gives some of them repeatedly, so that
        all videos have equally many. The facts are the fields of transformers' VideoMetadata.

    Raises:
        InputError: the file is not a video.
    """
    try:
        files.check_regular(Path(path))
        with av.open(str(path)) as container:
            fps = float(container.streams.video[0].average_rate or 1)
            total = sum(1 for _ in container.decode(video=0))  # what a header says may be wrong or missing
        wanted = np.linspace(0, max(total - 1, 0), count).round().astype(int)
        frames = _decoded(path, wanted)
    except UNREADABLE as error:
        raise _unreadable(path, error) from None
    height, width = frames.shape[1:3]
    facts = {"total_num_frames": total, "fps": fps, "frames_indices": wanted.tolist()}
    return frames, {**facts, "height": height, "width": width, "duration": total / fps}


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"the calibration video {path.name} cannot be read ({error or 'it has no frames'})")


def _decoded(path: Path, wanted: np.ndarray) -> np.ndarray:
    with av.open(str(path)) as container:
        frames = enumerate(container.decode(video=0))
        kept = {i: frame.to_ndarray(format="rgb24") for i, frame in frames if i in wanted}
    return np.stack([kept[i] for i in wanted])
