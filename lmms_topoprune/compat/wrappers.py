"""Patches for single wrappers of lmms-eval and their models; made for lmms-eval 0.7.3, transformers 5.24."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    Qwen2_5OmniThinkerForConditionalGeneration,
)

from lmms_topoprune.compat.touched import OMNI, replaced, replaced_names


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


def hand_on_inputs_only(processor: Any, image_token: str) -> None:
    """Have a processor take what the `huggingface` wrapper passes, and hand on only inputs: no labels.

    By itself it refuses empty lists of images, videos and sounds, and the names they have there: those of
    transformers 4.
    """
    kind = type(processor)

    @functools.wraps(kind.__call__)
    def call(self: Any, *args: Any, audios: list[Any] | None = None, **given: Any) -> Any:
        media = {"images": given.pop("images", None), "videos": given.pop("videos", None), "audio": audios}
        there = {name: items for name, items in media.items() if items}
        if "images" in there:
            there["images"] = _by_text(given.get("text"), there["images"], image_token)
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


def llama4_can_answer() -> None:
    """Give the outputs of Llama 4's decoder the field that its own model reads from them.

    Without it every forward pass of Llama4ForConditionalGeneration ends in an AttributeError; made for
    transformers 5.24.
    """
    from transformers.modeling_outputs import MoeCausalLMOutputWithPast

    if not hasattr(MoeCausalLMOutputWithPast, "image_outputs"):
        MoeCausalLMOutputWithPast.image_outputs = None


@contextmanager
def each_process_alone(device: str) -> Iterator[None]:
    """Within this block a wrapper on a CPU takes its process for the only one.

    By itself it asks for one GPU a process. Each loads the whole model, and lmms-eval tells the object its
    rank and its share of the requests when it evaluates.
    """
    if not device.startswith("cpu"):
        yield
        return
    from accelerate import Accelerator

    with replaced(Accelerator, num_processes=property(lambda _: 1)):
        yield


@contextmanager
def generating_through(network: Any, answer: Callable[..., Any]) -> Iterator[None]:
    """Within this block a model's `generate(...)` is answer(original, ...).

    Wrappers call it in loops of their own, which swallow what it raises and tell nobody how far they are.
    """
    with replaced(network, generate=functools.partial(answer, network.generate)):
        yield
