"""What single wrappers of lmms-eval need beyond the guarded loop."""

from __future__ import annotations

import functools
from typing import Any

from lmms_topoprune.harness.compat import generic_model_class, glm_model_class
from lmms_topoprune.harness.guarded import GuardedGeneration


class GenericGeneration(GuardedGeneration):
    """Mixin over PrunedModel for `huggingface`, which by itself loads no model that answers."""

    def _load(self, *arguments: Any) -> None:
        with generic_model_class():
            super()._load(*arguments)
        _drop_empty_media(self.processor)


def _drop_empty_media(processor: Any) -> None:
    """Pass on only the images, videos and sounds that are there, under the names of transformers 5."""
    kind = type(processor)

    @functools.wraps(kind.__call__)
    def call(self: Any, *args: Any, audios: list[Any] | None = None, **given: Any) -> Any:
        media = {"images": given.pop("images", None), "videos": given.pop("videos", None), "audio": audios}
        return kind.__call__(self, *args, **{name: items for name, items in media.items() if items}, **given)

    processor.__class__ = type(kind.__name__, (kind,), {"__call__": call, "__module__": kind.__module__})


class GlmGeneration(GuardedGeneration):
    """Mixin over PrunedModel for `glm4v`, which by itself takes every model for a mixture of experts."""

    def _load(self, *arguments: Any) -> None:
        with glm_model_class():
            super()._load(*arguments)
