"""Tasks of several rounds: what was answered decides what is asked next."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

from lmms_eval.api.instance import Instance, unwrap_generation_output


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
