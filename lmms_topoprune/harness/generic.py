"""lmms-eval's generic `huggingface` wrapper, for any image-text-to-text model of transformers."""

from __future__ import annotations

import functools
from typing import Any
from unittest import mock

from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedModel

from lmms_topoprune.harness.guarded import GuardedGeneration

LOOKED_UP = "lmms_eval.models.chat.huggingface.AutoModel"


class GenericGeneration(GuardedGeneration):
    """Mixin over PrunedModel for `huggingface`.

    With transformers 5 that wrapper by itself answers nothing: it looks model types up among configuration
    classes, never finds one and takes AutoModel, which cannot generate; and it passes empty lists of media.
    """

    def _load(self, *arguments: Any) -> None:
        with mock.patch(LOOKED_UP, _Generating):
            super()._load(*arguments)
        _drop_empty_media(self.processor)


class _Generating:
    @staticmethod
    def from_pretrained(name: str, **given: Any) -> PreTrainedModel:
        config = AutoConfig.from_pretrained(name, trust_remote_code=given.get("trust_remote_code", False))
        seeing = type(config) in AutoModelForImageTextToText._model_mapping
        auto = AutoModelForImageTextToText if seeing else AutoModelForCausalLM
        return auto.from_pretrained(name, **given)


def _drop_empty_media(processor: Any) -> None:
    """Pass on only the images, videos and sounds that are there, under the names of transformers 5."""
    kind = type(processor)

    @functools.wraps(kind.__call__)
    def call(self: Any, *args: Any, audios: list[Any] | None = None, **given: Any) -> Any:
        media = {"images": given.pop("images", None), "videos": given.pop("videos", None), "audio": audios}
        return kind.__call__(self, *args, **{name: items for name, items in media.items() if items}, **given)

    processor.__class__ = type(kind.__name__, (kind,), {"__call__": call, "__module__": kind.__module__})
