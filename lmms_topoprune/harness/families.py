"""What single wrappers of lmms-eval need beyond the guarded loop."""

from __future__ import annotations

import functools
from typing import Any

from lmms_topoprune._util.compat import llama4_can_answer
from lmms_topoprune.harness.compat import generic_model_class, glm_model_class
from lmms_topoprune.harness.guarded import GuardedGeneration


class GenericGeneration(GuardedGeneration):
    """Mixin over PrunedModel for `huggingface`, which by itself loads no model that answers."""

    def _load(self, *arguments: Any) -> None:
        with generic_model_class():
            super()._load(*arguments)
        _hand_on_inputs_only(self.processor)


def _hand_on_inputs_only(processor: Any) -> None:
    """Pass on only the images, videos and sounds that are there, under the names of transformers 5.

    And hand on only what is an input: no labels.
    """
    kind = type(processor)

    @functools.wraps(kind.__call__)
    def call(self: Any, *args: Any, audios: list[Any] | None = None, **given: Any) -> Any:
        media = {"images": given.pop("images", None), "videos": given.pop("videos", None), "audio": audios}
        there = {name: items for name, items in media.items() if items}
        inputs = kind.__call__(self, *args, **there, **given)
        inputs.pop("labels", None)  # PaliGemma's processor always makes some, for training
        return inputs

    processor.__class__ = type(kind.__name__, (kind,), {"__call__": call, "__module__": kind.__module__})


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
