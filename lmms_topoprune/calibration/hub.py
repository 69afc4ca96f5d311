"""Calibration samples from a data set of the Hugging Face hub or a local data set folder, streamed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from lmms_topoprune.calibration.media_files import bounded, open_image, whole_images
from lmms_topoprune.calibration.rows import IMAGES, TEXTS, TURNS, Question, Read, take
from lmms_topoprune.calibration.samples import Sample
from lmms_topoprune.errors import InputError, MissingExtraError, OptionError, UnreachableError, shown

SHUFFLE_BUFFER = 1000
PATIENCE = 10.0  # seconds for the one request that finds out whether the hub answers
INSTEAD = "pass calibration=embedded or a local file"


def hub_samples(source: str, count: int, seed: int, strict: bool = False) -> list[Sample]:
    """Samples of "name[@config][:split]".

    Raises:
        OptionError: no name.
        InputError: no such data set, or its rows cannot be used.
        UnreachableError: it cannot be reached.
    """
    try:
        from datasets import load_dataset
    except ImportError:
        raise MissingExtraError(
            "calibration 'hf:...' needs the package datasets: pip install datasets"
        ) from None
    name, config, split = parts(source)
    if not name:
        raise OptionError(f"calibration is {shown('hf:' + source)}; allowed: hf:NAME[@CONFIG][:SPLIT]")
    check_reachable(name)
    try:
        rows = load_dataset(name, config or None, split=split, streaming=True)
        rows = rows.shuffle(seed=seed, buffer_size=SHUFFLE_BUFFER)
        if rows.features is not None:
            rows = rows.decode(False)  # else one broken image would end the stream
        return take((partial(from_row, row) for row in rows), count, f"hf:{name}", strict)
    except InputError:
        raise
    except Exception as error:  # the hub client raises errors of many libraries
        reason = str(error).splitlines()[0] if str(error) else "no reason given"
        raise UnreachableError(
            f"calibration data set {shown(name)} cannot be read ({type(error).__name__}: {reason}); {INSTEAD}"
        ) from None


def parts(source: str) -> tuple[str, str, str]:
    """(name, configuration, split) of "name[@config][:split]"; the split is "train" by default."""
    name, _, split = source.partition(":")
    name, _, config = name.partition("@")
    return name, config, split or "train"


def check_reachable(name: str, *, cached: bool = False) -> None:
    """Find out with one request whether a data set can be had: loading retries for minutes.

    Args:
        name: a local path, a file format that `datasets` reads, or a name on the hub.
        cached: a copy in the cache of `datasets` will do.

    Raises:
        InputError: no such data set, or not for this user.
        UnreachableError: the hub does not answer.
    """
    if Path(name).exists() or _is_format(name) or (cached and _is_cached(name)):
        return
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, RepositoryNotFoundError

    try:
        get_hf_file_metadata(hf_hub_url(name, "README.md", repo_type="dataset"), timeout=PATIENCE)
    except EntryNotFoundError:
        return
    except (HFValidationError, RepositoryNotFoundError):
        raise InputError(
            f"the data set {shown(name)} is no folder here and none of the Hugging Face hub (or a gated "
            f"one); {INSTEAD}"
        ) from None
    except Exception:  # whatever the hub's client raises for a dead network, a time-out or offline mode
        raise UnreachableError(
            f"the data set {shown(name)} is not on this machine and the Hugging Face hub cannot be reached; "
            f"{INSTEAD}"
        ) from None


def _is_format(name: str) -> bool:
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

    return name in _PACKAGED_DATASETS_MODULES


def _is_cached(name: str) -> bool:
    import datasets.config
    from huggingface_hub import constants

    folders = (
        Path(os.path.expandvars(str(datasets.config.HF_DATASETS_CACHE))) / name.replace("/", "___"),
        Path(constants.HF_HUB_CACHE) / f"datasets--{name.replace('/', '--')}",
    )
    return any(folder.is_dir() for folder in folders)


def from_row(row: Mapping[str, Any]) -> Read:
    """A sample out of a data set's row.

    Raises:
        InputError: it has neither a text nor an image, or its image is none.
        OSError: its image is broken.
    """
    asked = Question.of(row)
    if asked.text is None and not asked.images:
        raise InputError(
            f"a row has the columns {', '.join(sorted(row))}; needed: one of {', '.join((*TEXTS, *TURNS))} "
            f"or {', '.join(IMAGES)}"
        )
    image = _reader(asked.images[0]) if asked.images else None
    return Read.of(asked.text, image, unused=max(0, len(asked.images) - 1))


def _reader(value: Any) -> Image.Image | Callable[[], Image.Image]:
    """An RGB image from what a row holds, or what reads it as often as one likes.

    Raises:
        InputError: it is no image.
        OSError: it is a broken one.
    """
    if isinstance(value, Mapping) and value.get("bytes"):
        return partial(open_image, value["bytes"])
    if isinstance(value, Mapping) and value.keys() >= {"bytes", "path"}:
        from datasets import Image as Feature

        with whole_images():
            value = Feature().decode_example(dict(value))
            return bounded(value)
    if not isinstance(value, Image.Image):
        raise InputError(f"the image of a row is a {type(value).__name__}, not an image")
    return bounded(value)
