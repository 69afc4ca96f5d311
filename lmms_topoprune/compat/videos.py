"""Videos are read by PyAV where lmms-eval's wrappers and transformers want a library that is not there.

Made for lmms-eval 0.7.3, transformers 5.24 and qwen_vl_utils 0.0.14.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import numpy as np

from lmms_topoprune.errors import InputError

UNREADABLE = (av.FFmpegError, OSError, LookupError, StopIteration, ValueError)


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


def _stand_ins() -> dict[str, ModuleType]:
    """Modules that wrappers may import as decord and moviepy."""
    decord = ModuleType("decord", "decord's reader, by PyAV.")
    decord.VideoReader = VideoReader  # type: ignore[attr-defined]
    decord.cpu = decord.gpu = lambda number=0: None  # type: ignore[attr-defined]
    moviepy = ModuleType("moviepy", "What of moviepy tells whether a video has sound, by PyAV.")
    moviepy.VideoFileClip = VideoFileClip  # type: ignore[attr-defined]
    for module in (decord, moviepy):
        module.__spec__ = ModuleSpec(module.__name__, None)  # whoever asks whether it is there finds it
    return {module.__name__: module for module in (decord, moviepy)}


@contextmanager
def video_readers_optional() -> Iterator[None]:
    """Within this block `import decord` and `import moviepy` succeed; afterwards sys.modules is as it was.

    Wrappers import these video readers, which few have, at their top or when they open a video. A stand-in
    that stayed would make others believe that decord is there, so those that ask at import
    (lmms_eval.protocol, transformers) are asked before.
    """
    import lmms_eval.protocol  # noqa: F401
    from transformers.utils.import_utils import is_decord_available

    is_decord_available()
    missing = {
        name: module
        for name, module in _stand_ins().items()
        if name not in sys.modules and importlib.util.find_spec(name) is None
    }
    sys.modules.update(missing)
    try:
        yield
    finally:
        for name in missing:
            del sys.modules[name]


def open_videos_by_pyav() -> None:
    """Let transformers and qwen_vl_utils open videos where they cannot.

    transformers takes torchcodec or a part of torchvision that is gone, qwen_vl_utils that part too; without
    either every video ends in an ImportError.
    """
    import torchvision.io
    from transformers import video_processing_utils as videos

    if not hasattr(torchvision.io, "read_video"):
        torchvision.io.read_video = _frames_between
    if _decodes_by_itself(videos) or hasattr(videos.VideoProcessorMixin, "topoprune"):
        return

    def fetch_videos(self: Any, given: Any, sample_indices_fn: Any = None) -> Any:
        if isinstance(given, list):
            return list(zip(*(self.fetch_videos(one, sample_indices_fn) for one in given), strict=True))
        return _sampled(VideoReader(given), sample_indices_fn)

    videos.VideoProcessorMixin.fetch_videos = fetch_videos
    videos.VideoProcessorMixin.topoprune = True


def _decodes_by_itself(videos: ModuleType) -> bool:
    """Whether transformers has torchcodec; 5.20, the last for Python 3.10, does not ask if it works."""
    if usable := getattr(videos, "is_torchcodec_usable", None):
        return bool(usable(decode="video"))
    return bool(getattr(videos, "is_torchcodec_available", bool)())


def _sampled(film: VideoReader, choose: Callable[..., Any] | None) -> tuple[Any, Any]:
    """Frames (T, H, W, C) that a video processor chooses, and what it wants to know about them."""
    from transformers.video_utils import VideoMetadata

    count, rate = len(film), film.get_avg_fps()
    height, width = film[0].shape[:2]
    facts = VideoMetadata(
        total_num_frames=count,
        fps=rate,
        duration=count / rate,
        video_backend="pyav",
        height=height,
        width=width,
    )
    indices = list(range(count)) if choose is None else list(choose(metadata=facts))
    facts.frames_indices = indices
    return film.get_batch(indices).asnumpy(), facts


def _frames_between(
    filename: str,
    start_pts: float = 0.0,
    end_pts: float | None = None,
    pts_unit: str = "sec",
    output_format: str = "THWC",
) -> tuple[Any, Any, dict[str, float]]:
    """What torchvision.io.read_video was: frames between two moments, no sound, and the frame rate."""
    import torch

    film, end = VideoReader(filename), float("inf") if end_pts is None else end_pts
    chosen = [n for n in range(len(film)) if start_pts <= film.get_frame_timestamp(n)[0] <= end]
    frames = torch.from_numpy(film.get_batch(chosen).asnumpy())  # (T, H, W, C)
    frames = frames.permute(0, 3, 1, 2) if output_format == "TCHW" else frames
    return frames, torch.empty(0), {"video_fps": film.get_avg_fps()}
