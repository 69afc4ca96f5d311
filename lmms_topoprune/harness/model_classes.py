"""Patches of the model classes that single wrappers of lmms-eval load; compat.TOUCHED lists them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    Qwen2_5OmniThinkerForConditionalGeneration,
)

from lmms_topoprune._util.compat import replaced, replaced_names
from lmms_topoprune.harness.compat import OMNI


@contextmanager
def generic_model_class() -> Iterator[None]:
    """Within this block the `huggingface` wrapper finds the model class that can answer.

    With transformers 5 it looks model types up among configuration classes, never finds one and takes
    AutoModel, which cannot generate.
    """
    with replaced_names(**{"lmms_eval.models.chat.huggingface.AutoModel": _Generating}):
        yield


class _Generating:
    @staticmethod
    def from_pretrained(name: str, **given: Any) -> Any:
        config = AutoConfig.from_pretrained(name, trust_remote_code=given.get("trust_remote_code", False))
        seeing = type(config) in AutoModelForImageTextToText._model_mapping
        auto = AutoModelForImageTextToText if seeing else AutoModelForCausalLM
        return auto.from_pretrained(name, **given)


@contextmanager
def glm_model_class() -> Iterator[None]:
    """Within this block the `glm4v` wrapper takes the class that config.json names.

    By itself it takes a mixture of experts for whatever has no "Flash" in its name or path.
    """
    from lmms_eval.models.simple import glm4v

    auto = AutoModelForImageTextToText
    with replaced(glm4v, Glm4vForConditionalGeneration=auto, Glm4vMoeForConditionalGeneration=auto):
        yield


@contextmanager
def omni_answers_in_text(folder: str) -> Iterator[None]:
    """Within this block the `qwen2_5_omni` wrapper loads the part that answers in text, and its processor.

    By itself it loads the talker too, to disable it, and the processor of Qwen/Qwen2.5-Omni-7B from the hub,
    whatever model is asked for.
    """
    with replaced_names(
        **{
            f"{OMNI}.Qwen2_5OmniForConditionalGeneration": _Thinker,
            f"{OMNI}.Qwen2_5OmniProcessor": _ProcessorOf(folder),
        }
    ):
        yield


class _Thinker:
    _tp_plan: ClassVar[list[str]] = []

    @staticmethod
    def from_pretrained(name: str, **given: Any) -> Any:
        model = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(name, **given)
        model.disable_talker = lambda: None
        return model


@dataclass(frozen=True)
class _ProcessorOf:
    folder: str

    def from_pretrained(self, _: str, **given: Any) -> Any:
        return AutoProcessor.from_pretrained(self.folder, **given)
