"""Answers by the wrapped class's own loop, without its habit of turning an exception into an empty answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lmms_eval.api.instance import Instance, unwrap_generation_output
from transformers import PreTrainedModel

from lmms_topoprune._util.compat import open_videos_with, replaced
from lmms_topoprune._util.signals import errors_kept
from lmms_topoprune._util.timing import measured
from lmms_topoprune.harness.answers import Failure
from lmms_topoprune.harness.compat import video_readers_optional
from lmms_topoprune.harness.likelihood import Likelihood, batch_size_of
from lmms_topoprune.harness.media import MediaSeen, UnseenMediumError
from lmms_topoprune.harness.rounds import answer_in_rounds
from lmms_topoprune.harness.user_errors import one_sentence
from lmms_topoprune.harness.videos import VideoReader

Answer = Callable[[list[Instance]], list[Any]]


class _Escape(BaseException):
    """Passes through `except Exception`."""


@contextmanager
def _escaping(network: PreTrainedModel, media: MediaSeen) -> Iterator[None]:
    """Within this block an exception in the network's generate() passes through `except Exception`.

    Before it answers, every medium that the task has shown meanwhile is looked for among its inputs.
    """
    generate: Any = network.generate

    def guarded(*args: Any, **kwargs: Any) -> Any:
        with errors_kept() as failure:
            media.check(kwargs)
            return generate(*args, **_in_full(kwargs, network.dtype))
        raise _Escape from failure.error

    with replaced(network, generate=guarded):
        yield


def _in_full(inputs: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """Pixels that a wrapper made in half precision, for a model in single precision."""
    if dtype != torch.float32:
        return inputs
    return {
        name: value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
        for name, value in inputs.items()
    }


class GuardedGeneration(Likelihood):
    """Mixin over PrunedModel: any wrapper's own answers, with failures seen and answers counted."""

    def generate_until(self, requests: list[Instance]) -> list[Any]:
        open_videos_with(VideoReader)
        media = MediaSeen(self.registered.wraps, self.hf_processor, answers=self.answers)
        watched = [media.watching(request) for request in requests]
        with (
            one_sentence(),
            measured(self.stages, "generate"),
            video_readers_optional(),
            _escaping(self.network, media),
        ):
            results = self._answer_all(super().generate_until, watched)
        for request, result in zip(requests, results, strict=True):
            self.answers.add(request, str(unwrap_generation_output(result)[0]))
        return results

    def generate_until_multi_round(self, requests: list[Instance]) -> list[Any]:
        return answer_in_rounds(self, requests)

    def _answer_all(self, answer: Answer, requests: list[Instance]) -> list[Any]:
        if self.options.on_error == "raise":
            return self._answer_or_raise(answer, requests)
        size = batch_size_of(self)
        chunks = (requests[start : start + size] for start in range(0, len(requests), size))
        return [result for chunk in chunks for result in self._answer_or_record(answer, chunk)]

    def _answer_or_raise(self, answer: Answer, requests: list[Instance]) -> list[Any]:
        try:
            return answer(requests)
        except (_Escape, Exception) as error:
            cause = error.__cause__ or error
            if isinstance(cause, UnseenMediumError):
                raise cause from None
            raise Failure.of(requests, cause).raised() from cause

    def _answer_or_record(self, answer: Answer, requests: list[Instance]) -> list[Any]:
        try:
            with errors_kept() as failure:
                return answer(requests)
        except _Escape as escape:
            failure.error = escape.__cause__  # type: ignore[assignment]
        if isinstance(failure.error, UnseenMediumError):
            raise failure.error
        if len(requests) > 1:
            return [self._answer_or_record(answer, [request])[0] for request in requests]
        return [self.answers.fail(requests[0], failure.error)]
