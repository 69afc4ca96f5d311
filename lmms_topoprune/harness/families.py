"""What single wrappers of lmms-eval need beyond the guarded loop."""

from __future__ import annotations

import functools
from itertools import islice
from typing import Any

from lmms_topoprune._util.compat import llama4_can_answer
from lmms_topoprune.calibration.prompts import Prompter
from lmms_topoprune.harness.guarded import GuardedGeneration
from lmms_topoprune.harness.model_classes import generic_model_class, glm_model_class

PLAIN = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endfor %}"
)


class GenericGeneration(GuardedGeneration):
    """Mixin over PrunedModel for `huggingface`, which by itself loads no model that answers."""

    def _load(self, *arguments: Any) -> None:
        with generic_model_class():
            super()._load(*arguments)
        _hand_on_inputs_only(self.processor)
        if not getattr(self.processor, "chat_template", None):  # PaliGemma was trained without turns
            self.processor.chat_template = PLAIN.replace("IMAGE", Prompter(self.processor).image_token)


def _hand_on_inputs_only(processor: Any) -> None:
    """Pass on only the images, videos and sounds that are there, under the names of transformers 5.

    And hand on only what is an input: no labels.
    """
    kind = type(processor)

    @functools.wraps(kind.__call__)
    def call(self: Any, *args: Any, audios: list[Any] | None = None, **given: Any) -> Any:
        media = {"images": given.pop("images", None), "videos": given.pop("videos", None), "audio": audios}
        there = {name: items for name, items in media.items() if items}
        if "images" in there:
            there["images"] = _by_text(given.get("text"), there["images"], Prompter(self).image_token)
        inputs = kind.__call__(self, *args, **there, **given)
        inputs.pop("labels", None)  # PaliGemma's processor always makes some, for training
        return inputs

    processor.__class__ = type(kind.__name__, (kind,), {"__call__": call, "__module__": kind.__module__})


def _by_text(texts: Any, images: list[Any], mark: str) -> list[Any]:
    """The images of each text, if its marks say which; the wrapper throws those of a batch together."""
    counts = [text.count(mark) for text in texts] if mark and isinstance(texts, list) else []
    if sum(counts) != len(images) or isinstance(images[0], (list, tuple)):
        return images
    rest = iter(images)
    return [list(islice(rest, count)) for count in counts]


class LlamaGeneration(GuardedGeneration):
    """Mixin over PrunedModel for `llama4_scout`."""

    def _load(self, *arguments: Any) -> None:
        llama4_can_answer()
        super()._load(*arguments)


class GlmGeneration(GuardedGeneration):
    """Mixin over PrunedModel for `glm4v`, which by itself takes every model for a mixture of experts."""

    def _load(self, *arguments: Any) -> None:
        with glm_model_class():
            super()._load(*arguments)
