"""Likelihoods of continuations given text and images, for every family, in batches."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms
from tqdm import tqdm

from lmms_topoprune._util.signals import errors_kept
from lmms_topoprune._util.timing import measured
from lmms_topoprune.calibration.media_files import read_frames
from lmms_topoprune.calibration.prompts import Prompter, aligned, padded
from lmms_topoprune.errors import InputError
from lmms_topoprune.harness.answers import Failure
from lmms_topoprune.harness.media import UnseenMediumError, kind_of, refuse_unseen
from lmms_topoprune.harness.user_errors import one_sentence


@dataclass(frozen=True)
class Prompt:
    """One request as the processor takes it: the text with placeholders, and what they stand for."""

    text: str
    images: tuple[Any, ...] = ()
    videos: tuple[Any, ...] = ()

    @property
    def kinds(self) -> tuple[str, ...]:
        return ("image",) * len(self.images) + ("video",) * len(self.videos)


class Likelihood(lmms):  # type: ignore[misc]
    """Mixin over PrunedModel: `loglikelihood`, which lmms-eval's multiple choice asks for too.

    lmms-eval's wrappers have none, but for llava_hf, which forgets the image. A family may word and encode
    prompts in its own way (`context_prompt`, `encode_prompts`).
    """

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """For each request the negative log-likelihood (nats) of its continuation, and whether it is greedy.

        The sum over the continuation's tokens, negative because lmms-eval 0.7.3 takes the smallest for the
        model's choice.

        Raises:
            UnseenMediumError: the model cannot see what the task shows.
            GenerationError: the model fails on a batch.
        """
        found: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        bar = tqdm(total=len(requests), disable=self.rank != 0, desc="Model Responding")
        with one_sentence(), measured(self.stages, "loglikelihood"), bar:
            asked = [self._asked(request) for request in requests]
            for batch in batches_of_a_kind([prompt for prompt, _ in asked], batch_size_of(self)):
                with errors_kept() as failure:
                    values = self._likelihoods([asked[index] for index in batch])
                if failure.error is not None:
                    if isinstance(failure.error, UnseenMediumError):
                        raise failure.error
                    failed = Failure.of([requests[index] for index in batch], failure.error)
                    raise failed.raised(can_record=False) from failure.error
                for index, value in zip(batch, values, strict=True):
                    found[index] = value
                bar.update(len(batch))
        return found

    def _asked(self, request: Instance) -> tuple[Prompt, str]:
        """The prompt and its continuation."""
        if len(request.args) == 2:  # a choice on its own, for mutual information
            words = Prompter(self.hf_processor).tokenizer
            return Prompt(words.bos_token or words.eos_token or ""), str(request.args[1])
        _, target, _, document, task, split = request.args
        if callable(target):
            target = target(self.task_dict[task][split][document])
        return self.context_prompt(request), str(target)

    def context_prompt(self, request: Instance) -> Prompt:
        """Context and media in the words of the processor's chat template.

        Raises:
            InputError: the task shows something that is neither an image nor a video.
        """
        context, visuals = request.args[0], self._visuals(request)
        kinds = [kind_of(visual) or "an unknown medium" for visual in visuals]
        if "audio" in kinds:
            refuse_unseen(["audio"], {}, self.registered.wraps, self.hf_processor)
        if "an unknown medium" in kinds:
            raise InputError("the task shows an unknown medium; allowed: images, videos")
        for mark in ("<image>", "<video>"):
            context = context.replace(mark, "")
        text = Prompter(self.hf_processor).worded(context.strip(), kinds)
        pairs = list(zip(visuals, kinds, strict=True))
        images = tuple(visual for visual, kind in pairs if kind == "image")
        return Prompt(text, images, tuple(visual for visual, kind in pairs if kind == "video"))

    def _visuals(self, request: Instance) -> Sequence[Any]:
        """What the document of a request shows."""
        _, _, doc_to_visual, document, task, split = request.args
        return (doc_to_visual(self.task_dict[task][split][document]) if doc_to_visual else None) or []

    def encode_prompts(self, prompts: Sequence[Prompt], side: str = "right") -> Any:
        """Tensors of a batch whose prompts have equally many images and videos, padded on that side."""
        processor = self.hf_processor
        prompter = Prompter(processor)
        media: dict[str, Any] = {}
        if prompts[0].images:
            media["images"] = [[image.convert("RGB") for image in prompt.images] for prompt in prompts]
        if prompts[0].videos:
            frames = [read_frames(video) for prompt in prompts for video in prompt.videos]
            media["videos"] = [video for video, _ in frames]
            media |= {"video_metadata": [facts for _, facts in frames], "do_sample_frames": False}
        if (bos := prompter.tokenizer.bos_token) and prompts[0].text.startswith(bos):
            media["add_special_tokens"] = False  # the template has put it there already
        with padded(prompter.tokenizer, side):
            texts = [prompt.text for prompt in prompts]
            inputs = aligned(processor(text=texts, padding=True, return_tensors="pt", **media), side)
        return inputs.to(self.network.device, self.network.dtype)

    @torch.inference_mode()
    def _likelihoods(self, asked: Sequence[tuple[Prompt, str]]) -> list[tuple[float, bool]]:
        inputs = self.encode_prompts(
            [replace(prompt, text=prompt.text + continuation) for prompt, continuation in asked]
        )
        refuse_unseen(
            {kind for prompt, _ in asked for kind in prompt.kinds},
            inputs,
            self.registered.wraps,
            self.hf_processor,
        )
        ids, lengths = inputs["input_ids"], inputs["attention_mask"].sum(dim=1).tolist()  # (B, T), B
        logits = self.network(**inputs).logits[:, -ids.shape[1] :]  # (B, T, V)
        found = []
        for row, ((prompt, continuation), length) in enumerate(zip(asked, lengths, strict=True)):
            start = length - self._count_tokens(prompt.text, continuation)
            targets = ids[row, start:length]  # (C,)
            scores = logits[row, start - 1 : length - 1].float().log_softmax(dim=-1)  # (C, V)
            chosen = scores.gather(1, targets[:, None]).sum()
            found.append((-float(chosen), bool((scores.argmax(dim=-1) == targets).all())))
        return found

    def _count_tokens(self, context: str, continuation: str) -> int:
        """Tokens of the continuation; placeholders of media are as many before and after."""
        words = Prompter(self.hf_processor).tokenizer
        before, after = (
            len(words(text, add_special_tokens=False).input_ids) for text in (context, context + continuation)
        )
        if after <= before:
            raise InputError(f"the continuation {continuation!r} adds no token to its context")
        return after - before


def batch_size_of(lm: Any) -> int:
    """How many requests are answered at once; 1 for llama_vision, whose property reads what it never sets."""
    try:
        return int(lm.batch_size)
    except AttributeError:
        return 1


def batches_of_a_kind(prompts: Sequence[Prompt], size: int) -> Iterator[list[int]]:
    """Indices of prompts with equally many images and videos, those with long texts first."""
    return batches([(prompt.kinds, len(prompt.text)) for prompt in prompts], size)


def batches(told: Sequence[tuple[Hashable, int]], size: int) -> Iterator[list[int]]:
    """Indices in batches of one kind, long ones first; `told` has the kind and the length of each."""
    groups: dict[Hashable, list[int]] = {}
    for index, (kind, _) in enumerate(told):
        groups.setdefault(kind, []).append(index)
    for group in groups.values():
        group.sort(key=lambda index: -told[index][1])
        for start in range(0, len(group), size):
            yield group[start : start + size]
