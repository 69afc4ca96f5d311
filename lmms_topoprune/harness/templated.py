"""Answers in batches in the words of the model's own chat template, where a wrapper's loop gives none."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lmms_eval.api.instance import GenerationResult, Instance
from PIL import Image
from transformers import AutoProcessor

from lmms_topoprune.calibration.media_files import FRAMES, read_frames
from lmms_topoprune.calibration.prompts import aligned, per_token
from lmms_topoprune.compat.wrappers import omni_answers_in_text
from lmms_topoprune.harness.batched import BatchedGeneration
from lmms_topoprune.harness.likelihood import Likelihood, Prompt, batches_of_a_kind
from lmms_topoprune.harness.media import kind_of, media_digest

BEGINNING_OF_ANSWER = "<0x04>"
END_OF_TURN = "<|im_end|>"


class TemplatedGeneration(BatchedGeneration):
    """Mixin over PrunedModel for wrappers whose own loop cannot be used.

    Video-LLaVA's asks for a GPU, Fuyu's reads one image of a batch, Phi-4's passes names that transformers 5
    refuses, Qwen2.5-Omni's ends a batch in an error, Aria's takes one request at a time. Prompts are worded,
    padded and answered as likelihoods are, so one image, several, and videos go the same way.
    """

    def _load(self, arguments: dict[str, Any], dtype: torch.dtype | None) -> None:
        if str(arguments.get("device_map")) == "cpu":
            arguments["device_map"] = "auto"  # any other word means a GPU to these wrappers
        super()._load(arguments, dtype)
        given = {name: arguments[name] for name in ("revision", "trust_remote_code") if name in arguments}
        self.processor = AutoProcessor.from_pretrained(arguments["pretrained"], **given)
        self._tokenizer = self.processor.tokenizer

    def _generate(self, prompts: list[Prompt], settings: dict[str, Any]) -> list[GenerationResult]:
        found: dict[int, GenerationResult] = {}
        for batch in batches_of_a_kind(prompts, len(prompts)):
            answers = super()._generate([prompts[index] for index in batch], settings)
            found |= dict(zip(batch, answers, strict=True))
        return [found[index] for index in range(len(prompts))]

    def _stopping(self) -> dict[str, Any]:
        """The tokens that end an answer are the model's own."""
        return {"pad_token_id": self.tokenizer.pad_token_id or self.eot_token_id}

    def _encode(self, prompts: list[Prompt]) -> Any:
        return self.encode_prompts(prompts, "left")

    def encode_prompts(self, prompts: Sequence[Prompt], side: str = "right") -> Any:
        return Likelihood.encode_prompts(self, prompts, side)

    def context_prompt(self, request: Instance) -> Prompt:
        return Likelihood.context_prompt(self, request)

    def _simple_prompt(self, request: Instance) -> Prompt:
        prompt = self.context_prompt(request)
        self.answers.shows(request, media_digest([*prompt.images, *prompt.videos]))
        return prompt

    def _frames(self, videos: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(videos)  # read when they are encoded

    def _visuals(self, request: Instance) -> Sequence[Any]:
        return [part for visual in super()._visuals(request) for part in self._seen(visual)]

    def _turns(self, turns: list[Any]) -> list[Any]:
        return [{**turn, "content": [*self._parts(turn["content"])]} for turn in turns]

    def _parts(self, content: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for part in content:
            if part["type"] == "video":
                for seen in self._seen(part["url"]):
                    kind = "video" if seen is part["url"] else "image"
                    yield {"type": kind, "url": seen}
            else:
                yield part

    def _seen(self, visual: Any) -> list[Any]:
        """A video as its frames where the processor takes images alone; anything else as it is."""
        if kind_of(visual) != "video" or hasattr(self.processor, "video_processor"):
            return [visual]
        frames, _ = read_frames(Path(visual), getattr(self, "max_frames_num", FRAMES))
        return [Image.fromarray(frame) for frame in frames]


class AriaGeneration(TemplatedGeneration):
    """Mixin over PrunedModel for `aria`, whose loop answers in 1024 tokens whatever a task asks for."""

    def _stopping(self) -> dict[str, Any]:
        return {**super()._stopping(), "stop_strings": [END_OF_TURN], "tokenizer": self.tokenizer}

    def _generate(self, prompts: list[Prompt], settings: dict[str, Any]) -> list[GenerationResult]:
        answers = super()._generate(prompts, settings)
        return [replace(answer, text=answer.text.partition(END_OF_TURN)[0]) for answer in answers]


class FuyuGeneration(TemplatedGeneration):
    """Mixin over PrunedModel for `fuyu`, whose processor ends every text that has an image by itself."""

    def context_prompt(self, request: Instance) -> Prompt:
        prompt = super().context_prompt(request)
        return Prompt(f"{prompt.text}\n{BEGINNING_OF_ANSWER}", prompt.images, prompt.videos)

    def encode_prompts(self, prompts: Sequence[Prompt], side: str = "right") -> Any:
        """Without the token that begins an answer where the processor puts it: behind the continuation."""
        inputs = super().encode_prompts(prompts, "left")
        for name in filter(per_token, inputs if prompts[0].images else ()):
            inputs[name] = inputs[name][:, :-1]
        return aligned(inputs, side)


class OmniGeneration(TemplatedGeneration):
    """Mixin over PrunedModel for `qwen2_5_omni`: the part that answers in text, without the talker."""

    def _load(self, arguments: dict[str, Any], dtype: torch.dtype | None) -> None:
        with omni_answers_in_text(arguments["pretrained"]):
            super()._load(arguments, dtype)
        del self.network.disable_talker
        said = json.dumps(self.system_prompt)
        system = "[{'role': 'system', 'content': [{'type': 'text', 'text': " + said + "}]}]"
        template = self.processor.chat_template
        self.processor.chat_template = f"{{%- set messages = {system} + messages -%}}{template}"
