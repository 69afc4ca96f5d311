"""Answers by the wrapped class's own loop, without its habit of turning an exception into an empty answer.

And what single wrappers need beside that.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from lmms_eval.api.instance import Instance, unwrap_generation_output
from transformers import PreTrainedModel

from lmms_topoprune._util.signals import errors_kept
from lmms_topoprune._util.timing import measured
from lmms_topoprune.calibration.prompts import Prompter
from lmms_topoprune.compat.videos import open_videos_by_pyav, video_readers_optional
from lmms_topoprune.compat.wrappers import (
    generating_through,
    generic_model_class,
    glm_model_class,
    hand_on_inputs_only,
    llama4_can_answer,
)
from lmms_topoprune.harness.answers import Failure
from lmms_topoprune.harness.likelihood import Likelihood, batch_size_of
from lmms_topoprune.harness.media import MediaSeen, UnseenMediumError
from lmms_topoprune.harness.user_errors import one_sentence


@dataclass
class _Conversation:
    """One request between its rounds.

    Attributes:
        request: as the task made it.
        single: the question of this round, as a request of its own; None when it is over.
        answers: so far.
        facts: what the task wants to be handed back.
    """

    request: Instance
    single: Instance | None
    answers: list[str] = field(default_factory=list)
    facts: Any = None


def answer_in_rounds(lm: Any, requests: list[Instance]) -> list[list[str]]:
    """All answers to each request, round by round; the questions of a round are answered in batches.

    The protocol is lmms-eval 0.7.3's: from the second round on the task's function gets `round_idx`,
    `previous_output` and `previous_round_info`, and says when it is over.
    """
    start = _first_simple if lm.is_simple else _first_chat
    go_on = _next_simple if lm.is_simple else _next_chat
    talks = [_Conversation(request, start(request)) for request in requests]
    while running := [talk for talk in talks if talk.single is not None]:
        answers = lm.generate_until([talk.single for talk in running])
        for talk, answer in zip(running, answers, strict=True):
            talk.answers.append(str(unwrap_generation_output(answer)[0]))
            talk.single = go_on(lm, talk)
    return [talk.answers for talk in talks]


def _asked(request: Instance, *arguments: Any) -> Instance:
    single = copy.copy(request)
    single.request_type, single.arguments = "generate_until", arguments
    return single


def _first_simple(request: Instance) -> Instance:
    context, settings, doc_to_visual, _, *where = request.args
    return _asked(request, context, settings, doc_to_visual, *where)


def _next_simple(lm: Any, talk: _Conversation) -> Instance | None:
    _, settings, _, doc_to_text, *where = talk.request.args
    document, task, split = where
    visuals, context, over, talk.answers, talk.facts = _payload(
        doc_to_text(
            lm.task_dict[task][split][document],
            previous_output=list(talk.answers),
            round_idx=len(talk.answers),
            previous_round_info=talk.facts,
        ),
        talk,
    )
    return None if over else _asked(talk.request, context, settings, lambda _: visuals, *where)


def _payload(given: Any, talk: _Conversation) -> tuple[Any, str, bool, list[str], Any]:
    """(visuals, context, whether it is over, answers, facts) of what the task's function returned."""
    if not (isinstance(given, tuple) and len(given) == 5):
        return None, "", True, talk.answers, talk.facts
    visuals, context, over, answers, facts = given
    return visuals or [], context, bool(over), talk.answers if answers is None else list(answers), facts


def _first_chat(request: Instance) -> Instance:
    return _asked(request, *request.args)


def _next_chat(lm: Any, talk: _Conversation) -> Instance | None:
    context, doc_to_messages, settings, document, task, split = talk.request.args
    given = doc_to_messages(
        lm.task_dict[task][split][document],
        round_idx=len(talk.answers),
        previous_output=list(talk.answers),
        previous_round_info=talk.facts,
    )
    if not (isinstance(given, tuple) and len(given) == 4):
        return None
    messages, over, _, talk.facts = given
    if over:
        return None
    return _asked(talk.request, context, lambda _: messages, settings, document, task, split)


Answer = Callable[[list[Instance]], list[Any]]


class _Escape(BaseException):
    """Passes through `except Exception`."""


@contextmanager
def _escaping(network: PreTrainedModel, media: MediaSeen) -> Iterator[None]:
    """Within this block an exception in the network's generate() passes through `except Exception`.

    Before it answers, every medium that the task has shown meanwhile is looked for among its inputs.
    """

    def guarded(generate: Any, *args: Any, **kwargs: Any) -> Any:
        with errors_kept() as failure:
            media.check(kwargs)
            return generate(*args, **_in_full(kwargs, network.dtype))
        raise _Escape from failure.error

    with generating_through(network, guarded):
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
        open_videos_by_pyav()
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
