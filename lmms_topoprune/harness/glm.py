"""lmms-eval's `glm4v` wrapper with the model class that config.json names."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any
from unittest import mock

from transformers import AutoModelForImageTextToText

from lmms_topoprune.harness.guarded import GuardedGeneration

LOOKED_UP = (
    "lmms_eval.models.simple.glm4v.Glm4vForConditionalGeneration",
    "lmms_eval.models.simple.glm4v.Glm4vMoeForConditionalGeneration",
)


class GlmGeneration(GuardedGeneration):
    """Mixin over PrunedModel for `glm4v`.

    That wrapper by itself takes a mixture of experts for whatever has no "Flash" in its name or path.
    """

    def _load(self, *arguments: Any) -> None:
        with ExitStack() as stack:
            for name in LOOKED_UP:
                stack.enter_context(mock.patch(name, AutoModelForImageTextToText))
            super()._load(*arguments)
