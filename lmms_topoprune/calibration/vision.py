"""How a family reads images: the ids that stand for their features, and what it cannot do."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sequence
from typing import Any

from torch import nn

from lmms_topoprune.calibration.samples import Sample
from lmms_topoprune.errors import InputError

IDS = ("image_token_id", "image_token_index", "video_token_id", "video_token_index")
# Mllama and Idefics 1 name the decoder layers here that read images by cross attention.
CROSS_ATTENTION = ("cross_attention_layers", "cross_layer_interval")


def image_token_ids(model: nn.Module, processor: Any) -> set[int]:
    """The ids that stand for image or video features in the input ids.

    The configuration decides: the model looks for these ids. A processor may mean another one by the
    same name (Gemma 3's is the begin-of-image mark), so it is asked only where the configuration is silent.
    Under cross attention no token holds features, and the mark in the prompt is text like any other.
    """
    if _cross_attention(model):
        return set()
    for owner in (getattr(model, "config", None), processor):
        if found := {v for n in IDS if isinstance(v := getattr(owner, n, None), int)}:
            return found
    return set()


def check(model: nn.Module, samples: Sequence[Sample], tokens: Collection[str]) -> None:
    """Refuse, before anything is computed, what this family cannot give.

    Raises:
        InputError: there are no image tokens, or a sample lacks the image that the model needs.
    """
    crossing = _cross_attention(model)
    if "mean_image" in tokens and crossing:
        raise InputError(
            "token is 'mean_image', but this model reads images by cross attention, so that no token stands "
            "for an image; allowed for this model: last, ret, mean, mean_text"
        )
    bare = next((i for i, s in enumerate(samples) if s.image is None), None)
    if bare is not None and (crossing or _needs_pixels(model)):
        reason = "skips its cross-attention layers" if crossing else "does not run"
        raise InputError(
            f"calibration sample {bare} has no image, but {type(model).__name__} {reason} without one; "
            "allowed for this model: samples with an image"
        )


def _cross_attention(model: nn.Module) -> bool:
    config: Any = getattr(model, "config", None)
    find = getattr(config, "get_text_config", None)
    text = find() if find else config
    return any(getattr(text, name, None) for name in CROSS_ATTENTION)


def _needs_pixels(model: nn.Module) -> bool:
    pixels = inspect.signature(model.forward).parameters.get("pixel_values")
    return pixels is not None and pixels.default is pixels.empty
