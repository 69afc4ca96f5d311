"""Every image, video and sound of a request has to reach the model, or the run stops."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lmms_eval.api.instance import Instance
from PIL import Image

from lmms_topoprune.errors import InputError
from lmms_topoprune.harness.answers import Answers

IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
MEGABYTE = 2**20
SOUNDS = (".wav", ".mp3", ".flac", ".ogg", ".m4a", ".opus")
# Parts of the names under which processors hand a medium on; videos may go as frames, which are images.
_NAMES = {
    "image": ("pixel_values", "image", "patches"),
    "video": ("video", "pixel_values", "image", "patches"),
    "audio": ("audio", "input_features", "input_values", "speech"),
}
_ONLY_FACTS = ("sizes", "mask", "grid_thw", "num_", "position", "_ids", "bound", "metadata")


class UnseenMediumError(InputError):
    """A medium of a request is not among the model's inputs; its answers would be blind."""


def kind_of(visual: Any) -> str | None:
    """Image, video or audio, as lmms-eval's tasks hand them over; None for what is neither."""
    if isinstance(visual, Image.Image):
        return "image"
    if isinstance(visual, str):
        ending = visual.lower().rpartition(".")[2]
        return "image" if f".{ending}" in IMAGES else "audio" if f".{ending}" in SOUNDS else "video"
    if (isinstance(visual, Mapping) and "array" in visual) or hasattr(visual, "get_all_samples"):
        return "audio"
    return None


def refuse_unseen(kinds: Iterable[str], inputs: Mapping[str, Any], family: str, processor: Any) -> None:
    """Look for every medium among what a processor made of a request.

    Raises:
        UnseenMediumError: names the family, the processor and the medium.
    """
    there = [
        name
        for name, value in inputs.items()
        if _holds_numbers(value) and not any(part in name for part in _ONLY_FACTS)
    ]
    for kind in sorted(set(kinds)):
        if not any(part in name for name in there for part in _NAMES[kind]):
            raise UnseenMediumError(
                f"the task shows {family} {'an' if kind[0] in 'ai' else 'a'} {kind}, of which "
                f"{type(processor).__name__} hands nothing on to the model; take a family that reads "
                f"{kind}s, or another task"
            )


def _holds_numbers(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return value.numel() > 0
    return isinstance(value, (list, tuple)) and any(_holds_numbers(part) for part in value)


def media_digest(made: Any) -> str:
    """A hash of the pixels, files and sounds that a document shows, in their order; "" if it shows none."""
    found = hashlib.sha256()
    shown = 0
    for _, medium in _media_in(made):
        shown += 1
        for part in _content(medium):
            found.update(part)
    return found.hexdigest()[:16] if shown else ""


def _media_in(made: Any) -> Iterable[tuple[str | None, Any]]:
    """(kind, medium) of a list of visuals, or of messages of a conversation; None for an unknown kind."""
    for part in made if isinstance(made, (list, tuple)) else ():
        if isinstance(part, Mapping) and "content" in part:
            content = part["content"] if isinstance(part["content"], list) else ()
            yield from ((item["type"], item.get("url", "")) for item in content if item.get("type") in _NAMES)
        elif (kind := kind_of(part)) or not isinstance(part, Mapping):
            yield kind, part


def _content(medium: Any) -> Iterable[bytes]:
    """What makes a medium: pixels, the bytes of a file (of a large one its ends), or numbers."""
    if isinstance(medium, Image.Image):
        yield repr((medium.mode, medium.size)).encode()
        yield medium.tobytes()
    elif isinstance(medium, (str, Path)) and Path(medium).is_file():
        with Path(medium).open("rb") as file:
            size = file.seek(0, 2)
            yield str(size).encode()
            for start in sorted({0, max(0, size - MEGABYTE)}):
                file.seek(start)
                yield file.read(MEGABYTE)
    elif isinstance(medium, Mapping) and "array" in medium:
        yield np.ascontiguousarray(medium["array"]).tobytes()
    else:
        yield str(medium).encode() if isinstance(medium, (str, Path)) else type(medium).__name__.encode()


@dataclass
class MediaSeen:
    """Notes what tasks show while requests are answered, and checks it against the model's inputs.

    Attributes:
        family: id of the wrapped lmms-eval model, for the sentence.
        processor: makes the inputs.
        shown: kinds of media that tasks handed over since the last check.
        answers: note what every document shows, for the samples file.
    """

    family: str
    processor: Any
    shown: set[str] = field(default_factory=set)
    answers: Answers | None = None

    def watching(self, request: Instance) -> Instance:
        """The same request, whose document is noted when it is turned into media; its settings are a copy."""
        watched = copy.copy(request)
        watched.arguments = tuple(self._watched(argument, request) for argument in request.args)
        return watched

    def _watched(self, argument: Any, request: Instance) -> Any:
        if isinstance(argument, dict):
            return copy.deepcopy(argument)  # wrappers write into the settings that requests share
        return partial(self._noting, request, argument) if callable(argument) else argument

    def _noting(self, request: Instance, make: Callable[..., Any], *given: Any, **named: Any) -> Any:
        made = make(*given, **named)
        if self.answers is not None and isinstance(made, (list, tuple)):
            self.answers.shows(request, media_digest(made))
        self.shown |= {kind for kind, _ in _media_in(made) if kind}
        return made

    def check(self, inputs: Mapping[str, Any]) -> None:
        """Compare what was shown since the last time with the model's inputs."""
        shown, self.shown = self.shown, set()
        refuse_unseen(shown, inputs, self.family, self.processor)
