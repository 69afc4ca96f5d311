"""What single wrappers of lmms-eval need beyond the guarded loop."""

from __future__ import annotations

from typing import Any

from lmms_topoprune.calibration.prompts import Prompter
from lmms_topoprune.compat.wrappers import (
    generic_model_class,
    glm_model_class,
    hand_on_inputs_only,
    llama4_can_answer,
)
from lmms_topoprune.harness.guarded import GuardedGeneration

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
        image_token = Prompter(self.processor).image_token
        hand_on_inputs_only(self.processor, image_token)
        if not getattr(self.processor, "chat_template", None):  # PaliGemma was trained without turns
            self.processor.chat_template = PLAIN.replace("IMAGE", image_token)


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
