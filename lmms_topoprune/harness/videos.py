"""What lmms-eval's wrappers use of decord and moviepy, which few have, by PyAV, which is always there."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import numpy as np

from lmms_topoprune.calibration.video import UNREADABLE
from lmms_topoprune.errors import InputError


class Frames(np.ndarray):
    """Frames as decord hands them over: `asnumpy()` gives the numbers."""

    def asnumpy(self) -> np.ndarray:
        return self.view(np.ndarray)


class VideoReader:
    """decord.VideoReader as far as wrappers go: length, frame rate, frames by number.

    Args:
        uri: path of the video.
        width, height: of the frames; as in the file where they are -1.

    Raises:
        InputError: the file is no video.
    """

    def __init__(
        self,
        uri: str | Path,
        ctx: Any = None,
        width: int = -1,
        height: int = -1,
        num_threads: int = 0,
        **_: Any,
    ) -> None:
        self.path, self.size = str(uri), (width, height)
        try:
            with av.open(self.path) as container:
                self.rate = float(container.streams.video[0].average_rate or 1)
                self.times = [float(frame.time or 0) for frame in container.decode(video=0)]
        except UNREADABLE as error:
            raise InputError(f"the video {self.path!r} cannot be read ({error})") from None

    def __len__(self) -> int:
        return len(self.times)

    def get_avg_fps(self) -> float:
        return self.rate

    def get_frame_timestamp(self, index: int) -> tuple[float, float]:
        return self.times[index], self.times[index] + 1 / self.rate

    def seek(self, index: int) -> None:
        """Nothing: frames are found by their number."""

    def get_batch(self, indices: Sequence[int]) -> Frames:
        """uint8 (N, H, W, 3), RGB, in the order asked for."""
        wanted = [int(index) % len(self) for index in np.asarray(indices).tolist()]
        width, height = (None if side < 1 else side for side in self.size)
        found: dict[int, np.ndarray] = {}
        with av.open(self.path) as container:
            for number, frame in enumerate(container.decode(video=0)):
                if number in wanted:
                    found[number] = frame.to_ndarray(format="rgb24", width=width, height=height)
                if number >= max(wanted):
                    break
        return np.stack([found[index] for index in wanted]).view(Frames)

    def __getitem__(self, index: int) -> Frames:
        return self.get_batch([index])[0]


class VideoFileClip:
    """moviepy.VideoFileClip as far as wrappers go: whether a video has sound."""

    def __init__(self, filename: str) -> None:
        with av.open(filename) as container:
            self.audio = container.streams.audio or None


def stand_ins() -> dict[str, ModuleType]:
    """Modules that wrappers may import as decord and moviepy."""
    decord = ModuleType("decord", "decord's reader, by PyAV.")
    decord.VideoReader = VideoReader  # type: ignore[attr-defined]
    decord.cpu = decord.gpu = lambda number=0: None  # type: ignore[attr-defined]
    moviepy = ModuleType("moviepy", "What of moviepy tells whether a video has sound, by PyAV.")
    moviepy.VideoFileClip = VideoFileClip  # type: ignore[attr-defined]
    for module in (decord, moviepy):
        module.__spec__ = ModuleSpec(module.__name__, None)  # whoever asks whether it is there finds it
    return {module.__name__: module for module in (decord, moviepy)}
