"""Rows of a calibration source: what each asks, in the forms people write; broken ones are skipped."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from lmms_topoprune.calibration.media_files import StoredImage
from lmms_topoprune.calibration.samples import Sample
from lmms_topoprune.errors import InputError

log = logging.getLogger(__name__)

DESCRIBE, DESCRIBE_VIDEO = "Describe the image.", "Describe the video."
# A source with a few broken rows is still a sample of its data; one with many is not.
BROKEN_SHARE = 0.1
# Most specific first; LLaVA, ShareGPT and OpenAI keep turns, others one text.
TURNS = ("conversations", "messages", "conversation")
TEXTS = ("instruction", "question", "prompt", "text", "query", "input")
IMAGES = ("image", "images", "img", "picture")
VIDEOS = ("video", "videos")
USERS = ("user", "human")
# What families write where an image, a video or a turn stands: a tokenizer takes it for the thing itself.
MARKERS = re.compile(
    r"<\|\w+\|>|\[IMG(?:_BREAK|_END)?\]|<(?:start|end)_of_(?:image|turn)>|<image_(?:soft_token|placeholder)>"
    r"|</?(?:image|video|audio|img|im_patch|im_start|im_end|vid_patch|vid_start|vid_end|Image|IMG_CONTEXT)>"
    r"|<fake_token_around_image>|<global-img>|<row_\d+_col_\d+>"
)


@dataclass(frozen=True)
class Question:
    """What a row asks.

    Attributes:
        text: the instruction, with markers; None if there is no such column.
        images, videos: in whatever way the row names them.
    """

    text: str | None
    images: Sequence[Any] = ()
    videos: Sequence[Any] = ()

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Question:
        """The first turn of the user, or the first column with a usual name for an instruction."""
        text = next((row[key] for key in TEXTS if isinstance(row.get(key), str)), None)
        images, videos = (_listed(row, keys) for keys in (IMAGES, VIDEOS))
        turns = next((_turns(row[key]) for key in TURNS if row.get(key)), [])
        if not turns:
            return cls(text, images, videos)
        content = next((_content(turn) for turn in turns if _is_user(turn)), [])
        parts = [part for part in content if isinstance(part, Mapping)]
        texts = [part["text"] for part in parts if isinstance(part.get("text"), str)]
        said = "\n".join(texts) if texts else None
        return cls(said, _places(parts, "image") or images, _places(parts, "video") or videos)


def _listed(row: Mapping[str, Any], keys: Iterable[str]) -> Sequence[Any]:
    """What stands under the first key that has something, as a list."""
    found = [row[key] for key in keys if row.get(key) is not None]
    listed = (value if isinstance(value, (list, tuple)) else [value] for value in found)
    return next((values for values in listed if [*values] not in ([], [""])), [])


def _turns(value: Any) -> Sequence[Any]:
    """Turns as a list; data sets of old versions of `datasets` have one list for each key of a turn."""
    if isinstance(value, Mapping) and all(isinstance(column, (list, tuple)) for column in value.values()):
        return [dict(zip(value, row, strict=False)) for row in zip(*value.values(), strict=False)]
    return value if isinstance(value, (list, tuple)) else []


def _is_user(turn: Any) -> bool:
    return isinstance(turn, Mapping) and turn.get("from", turn.get("role")) in USERS


def _content(turn: Mapping[str, Any]) -> Sequence[Any]:
    """A turn as a list of parts."""
    content = turn.get("value", turn.get("content"))
    return content if isinstance(content, (list, tuple)) else [{"type": "text", "text": content}]


def _places(parts: Iterable[Mapping[str, Any]], kind: str) -> list[Any]:
    """Where images or videos are: {"image_url": {"url": PLACE}}, {"image": PLACE} and the like."""
    keys = (f"{kind}_url", kind, "url", "path")
    own = (part for part in parts if kind in str(part.get("type")))
    found = (next((part[key] for key in keys if part.get(key)), None) for part in own)
    return [p.get("url", p) if isinstance(p, Mapping) else p for p in found if p is not None]


@dataclass(frozen=True)
class Read:
    """A row that was read.

    Attributes:
        sample: with its image.
        again: reads the image again; None to keep it.
        markers: how many were taken out of the instruction.
        unused: images and videos beyond the first.
    """

    sample: Sample
    again: Callable[[], Image.Image] | None = None
    markers: int = 0
    unused: int = 0

    @classmethod
    def of(
        cls,
        text: str | None,
        image: Callable[[], Image.Image] | Image.Image | None = None,
        video: Path | None = None,
        unused: int = 0,
    ) -> Read:
        """A sample without markers; whoever asks nothing about an image wants it described.

        Args:
            text: the instruction, perhaps with markers.
            image: the image, or what reads it, now and again later.

        Raises:
            InputError: there is nothing to ask, or the text is none.
            OSError, ValueError, SyntaxError: the image cannot be read.
        """
        plain, markers = MARKERS.subn("", text or "")
        plain = plain.strip() if markers else plain
        if not plain.strip():
            if image is None and video is None:
                raise InputError("there is no text" + (" but markers" if markers else ""))
            plain = DESCRIBE if video is None else DESCRIBE_VIDEO
        if not plain.isascii():
            plain.encode()  # half a surrogate pair, which JSON can write, is no text
        pixels = image() if callable(image) else image
        again = image if callable(image) else None
        return cls(Sample(plain, pixels, video), again, markers, unused)

    def kept(self) -> Sample:
        """The sample; where its image can be read again, without it."""
        image = self.sample.image
        if self.again is None or image is None:
            return self.sample
        return self.sample.stored(StoredImage(self.again, image.size))


def take(rows: Iterable[Callable[[], Read]], count: int, source: str, strict: bool = False) -> list[Sample]:
    """The first `count` samples that can be read; broken ones are skipped, counted and reported.

    Raises:
        InputError: too many are broken, or none can be read; with `strict`, the first broken one.
    """
    found: list[Sample] = []
    broken: list[str] = []
    notes: Counter[str] = Counter()
    for row in rows:
        try:
            read = row()
            found.append(read.kept())
            notes["markers taken out of instructions"] += read.markers
            notes["images and videos beyond the first of a row left out"] += read.unused
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
    notes["samples that repeat another one"] = len(found) - len({sample.digest for sample in found})
    for what, times in notes.items():
        if times:
            log.warning("calibration %s: %d %s", source, times, what)
    return found
