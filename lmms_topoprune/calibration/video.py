"""Frames of a video file."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from lmms_topoprune._util import files
from lmms_topoprune.compat.videos import UNREADABLE
from lmms_topoprune.errors import InputError

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
