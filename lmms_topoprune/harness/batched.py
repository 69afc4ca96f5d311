"""Answers of the LLaVA line in batches, with exactly the prompts of lmms-eval's llava_hf.

llava_hf itself refuses a batch size above 1, writes into settings that requests share, and turns an
exception in generate() into an empty answer.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.models.model_utils.gen_metrics import log_metrics
from lmms_eval.protocol import ChatMessages
from tqdm import tqdm

from lmms_topoprune._util.signals import errors_kept
from lmms_topoprune._util.timing import measured
from lmms_topoprune.calibration.media_files import read_frames
from lmms_topoprune.calibration.prompts import Prompter, padded
from lmms_topoprune.harness.answers import Failure
from lmms_topoprune.harness.guarded import answer_in_rounds
from lmms_topoprune.harness.likelihood import Likelihood, Prompt, batches
from lmms_topoprune.harness.media import UnseenMediumError, kind_of, media_digest, refuse_unseen
from lmms_topoprune.harness.user_errors import one_sentence

PLACEHOLDERS = {"image": "<image>", "video": "<video>"}


class BatchedGeneration(Likelihood):
    """Mixin over PrunedModel for llava_hf, simple and chat."""

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:
        """Answer all requests; the longest come first, in batches of equal settings."""
        answers: list[GenerationResult | None] = [None] * len(requests)
        bar = tqdm(total=len(requests), disable=self.rank != 0, desc="Model Responding")
        with one_sentence(), measured(self.stages, "generate"), bar:
            start = time.perf_counter()
            for batch in _batches(requests, self.batch_size):
                for index, answer in zip(batch, self._answer([requests[i] for i in batch]), strict=True):
                    answers[index] = answer
                    bar.update(1)
            self._log_speed(answers, time.perf_counter() - start)
        return answers

    def generate_until_multi_round(self, requests: list[Instance]) -> list[list[str]]:
        return answer_in_rounds(self, requests)

    def context_prompt(self, request: Instance) -> Prompt:
        return self._simple_prompt(request)

    def encode_prompts(self, prompts: Sequence[Prompt], side: str = "right") -> Any:
        with padded(self.tokenizer, side):
            return self._encode([*prompts])

    def _answer(self, requests: list[Instance]) -> list[GenerationResult]:
        with errors_kept() as failure:
            prompts = [self._prompt(request) for request in requests]
            results = self._generate(prompts, _settings(requests[0]))
        if failure.error is not None:
            if isinstance(failure.error, UnseenMediumError):
                raise failure.error
            if self.options.on_error == "raise":
                raise Failure.of(requests, failure.error).raised() from failure.error
            if len(requests) > 1:
                return [self._answer([request])[0] for request in requests]
            return [self.answers.fail(requests[0], failure.error)]
        for request, result in zip(requests, results, strict=True):
            self.answers.add(request, result.text)
        return results

    def _generate(self, prompts: list[Prompt], settings: dict[str, Any]) -> list[GenerationResult]:
        inputs = self._encode(prompts)
        shown = {kind for prompt in prompts for kind in prompt.kinds}
        refuse_unseen(shown, inputs, self.registered.wraps, self.hf_processor)
        ids = self.model.generate(**inputs, **settings, **self._stopping())
        ids = ids[:, inputs["input_ids"].shape[1] :]
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [
            GenerationResult(text, TokenCounts(output_tokens=_length(row, self.eot_token_id)))
            for text, row in zip(texts, ids, strict=True)
        ]

    def _stopping(self) -> dict[str, Any]:
        """What llava_hf passes to generate() beside the task's settings."""
        end = self.eot_token_id
        return {"use_cache": self.use_cache, "pad_token_id": end, "eos_token_id": end}

    def _encode(self, prompts: list[Prompt]) -> Any:
        """Left-padded inputs of a batch; images and videos in the order of their placeholders."""
        media = {
            "images": [image for prompt in prompts for image in prompt.images],
            "videos": [video for prompt in prompts for video in prompt.videos],
        }
        inputs = self._image_processor(
            text=[prompt.text for prompt in prompts],
            **{kind: items for kind, items in media.items() if items},
            padding=True,
            return_tensors="pt",
        )
        return inputs.to(self._device, self.model.dtype)

    def _prompt(self, request: Instance) -> Prompt:
        return self._simple_prompt(request) if self.is_simple else self._chat_prompt(request)

    def _chat_prompt(self, request: Instance) -> Prompt:
        _, doc_to_messages, _, doc_id, task, split = request.args
        messages = ChatMessages(messages=self._turns(doc_to_messages(self.task_dict[task][split][doc_id])))
        images, videos, sounds = messages.extract_media()
        if sounds:
            refuse_unseen(["audio"], {}, self.registered.wraps, self.hf_processor)
        self.answers.shows(request, media_digest([*images, *videos]))
        return Prompt(self._worded(messages), tuple(images), self._frames(videos))

    def _turns(self, turns: list[Any]) -> list[Any]:
        """A task's messages as the processor takes them."""
        return turns

    def _worded(self, messages: ChatMessages) -> str:
        """A conversation in the words of the processor's chat template."""
        return Prompter(self.hf_processor).conversation(messages.model_dump()["messages"])

    def _simple_prompt(self, request: Instance) -> Prompt:
        context, _, doc_to_visual, doc_id, task, split = request.args
        visuals = doc_to_visual(self.task_dict[task][split][doc_id]) or []
        self.answers.shows(request, media_digest(visuals))
        kind = (kind_of(visuals[0]) or "audio") if visuals else "image"
        if kind not in PLACEHOLDERS:
            refuse_unseen([kind], {}, self.registered.wraps, self.hf_processor)
        if visuals and PLACEHOLDERS["image"] not in context:
            context = f"{' '.join([PLACEHOLDERS[kind]] * len(visuals))}\n{context}"
        text = self._render(context)
        if kind == "video":
            return Prompt(text, videos=self._frames(visuals))
        return Prompt(text, tuple(visuals))

    def _frames(self, videos: Sequence[Any]) -> tuple[Any, ...]:
        """Frames of videos that are given by their path, spread evenly."""
        count = self.max_frames_num
        return tuple(
            read_frames(Path(video), count)[0] if isinstance(video, (str, Path)) else video
            for video in videos
        )

    def _render(self, context: str) -> str:
        from lmms_eval.models.simple.llava_hf import VICUNA_CHAT_TEMPLATE

        template = self.chat_template or self.tokenizer.chat_template or VICUNA_CHAT_TEMPLATE
        return self.tokenizer.apply_chat_template(
            [{"role": "user", "content": context}],
            chat_template=template,
            tokenize=False,
            add_generation_prompt=True,
        )

    def _log_speed(self, answers: list[GenerationResult], seconds: float) -> None:
        tokens = sum(a.token_counts.output_tokens for a in answers if a.token_counts)
        speed = tokens / seconds if seconds else 0.0
        log_metrics(seconds, tokens, speed, additional_metrics={"rank": self.rank})


def _batches(requests: list[Instance], size: int) -> Iterator[list[int]]:
    """Indices of requests with equal settings, those with long texts first."""
    settings = (json.dumps(_gen_kwargs(request), sort_keys=True, default=str) for request in requests)
    return batches([(kind, len(r.args[0])) for kind, r in zip(settings, requests, strict=True)], size)


def _gen_kwargs(request: Instance) -> dict[str, Any]:
    return next(argument for argument in request.args if isinstance(argument, dict))


def _settings(request: Instance) -> dict[str, Any]:
    """llava_hf's reading of the task's generation settings; it knows no stop strings."""
    given = _gen_kwargs(request)
    temperature = given.get("temperature", 0) or 0
    sample = temperature > 0
    return {
        "do_sample": sample,
        "temperature": temperature if sample else None,
        "top_p": given.get("top_p"),
        "num_beams": given.get("num_beams", 1),
        "max_new_tokens": given.get("max_new_tokens", 1024),
    }


def _length(ids: torch.Tensor, end: int) -> int:
    """Tokens of one answer, its end token included; ids (T,) are filled up with end tokens."""
    ends = (ids == end).nonzero()
    return int(ends[0]) + 1 if len(ends) else len(ids)
