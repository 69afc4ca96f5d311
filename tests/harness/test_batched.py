"""The LLaVA line answers as llava_hf does, in batches, and never hides a failure."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from lmms_eval import models

from lmms_topoprune.compat.videos import video_readers_optional
from lmms_topoprune.errors import GenerationError
from lmms_topoprune.harness import batched

KINDS = ("simple", "chat")


def llava_hf(kind: str, folder: Any) -> Any:
    with video_readers_optional():
        original = models.get_model("llava_hf", force_simple=kind == "simple")
    return original(pretrained=str(folder), device="cpu", device_map="cpu", dtype="float32")


@pytest.mark.parametrize("kind", KINDS)
def test_dense_reference_answers_like_llava_hf(kind, folder, load, asked):
    expected = asked.ask(llava_hf(kind, folder), asked.requests(kind))
    assert len(set(expected)) > 5, "the questions have to tell right from wrong"
    assert asked.ask(load("dense_llava", kind), asked.requests(kind)) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_answers_like_single_requests(kind, load, asked):
    single = asked.ask(load("topopruned_llava", kind, layers="2+4"), asked.requests(kind))
    batch = asked.ask(load("topopruned_llava", kind, layers="2+4", batch_size=4), asked.requests(kind))
    assert batch == single
    assert single != asked.ask(load("dense_llava", kind), asked.requests(kind))


def test_right_padding_would_be_noticed(load, asked):
    lm = load("dense_llava", batch_size=4)
    expected = asked.ask(lm, asked.requests("chat"))
    lm.tokenizer.padding_side = "right"
    assert asked.ask(lm, asked.requests("chat")) != expected


def test_a_batch_may_mix_images_and_text_alone(load, asked):
    docs = copy.copy(asked.docs)
    docs[1] = {**docs[1], "images": []}
    mixed = type(asked)(docs)
    single = mixed.ask(load("dense_llava"), mixed.requests("chat"))
    assert mixed.ask(load("dense_llava", batch_size=11), mixed.requests("chat")) == single


def test_settings_that_requests_share_are_not_changed(load, asked):
    settings = {"max_new_tokens": 3, "until": ["\n\n"]}
    asked.ask(load("dense_llava", batch_size=4), asked.requests("chat", settings))
    assert settings == {"max_new_tokens": 3, "until": ["\n\n"]}


def test_the_task_decides_how_tokens_are_drawn(load, asked, monkeypatch):
    """Every sampling setting of the task reaches generate(), and nothing else does."""
    lm, given = load("dense_llava"), {}
    generate = lm.model.generate

    def note(**settings):
        given.update(settings)
        return generate(**settings)

    monkeypatch.setattr(lm.model, "generate", note)
    wanted = {"temperature": 0.7, "top_p": 0.3, "num_beams": 2, "max_new_tokens": 2}
    asked.ask(lm, asked.requests("chat", {**wanted, "until": ["x"]})[:1])
    assert {name: given[name] for name in wanted} == wanted and given["do_sample"] is True
    asked.ask(lm, asked.requests("chat", {"max_new_tokens": 2, "temperature": 0})[:1])
    assert (given["do_sample"], given["temperature"], given["top_p"]) == (False, None, None)


def test_different_settings_do_not_share_a_batch(load, asked):
    requests = asked.requests("chat", {"max_new_tokens": 1})[:4] + asked.requests("chat")[4:]
    counts = [r.token_counts.output_tokens for r in _raw(load("dense_llava", batch_size=8), asked, requests)]
    assert set(counts[:4]) == {1}
    assert max(counts[4:]) > 1


def _raw(lm: Any, asked: Any, requests: list[Any]) -> list[Any]:
    lm.task_dict = {"tiny": {"test": asked.docs}}
    return lm.generate_until(requests)


def failing_at(lm: Any, asked: Any, document: int) -> None:
    """Make generation fail for one document."""
    text, generate = asked.docs[document]["question"], lm._generate

    def fail(prompts: list[batched.Prompt], settings: dict[str, Any]) -> list[Any]:
        if any(text in prompt.text for prompt in prompts):
            raise RuntimeError("out of luck")
        return generate(prompts, settings)

    lm._generate = fail


def test_a_failure_stops_the_run(load, asked):
    lm = load("dense_llava", batch_size=1)
    failing_at(lm, asked, 5)
    with pytest.raises(GenerationError, match="'tiny', document 5: RuntimeError: out of luck"):
        asked.ask(lm, asked.requests("chat"))


def test_a_recorded_failure_costs_one_answer_only(load, asked):
    expected = asked.ask(load("dense_llava"), asked.requests("chat"))
    lm = load("dense_llava", batch_size=4, on_error="record")
    failing_at(lm, asked, 5)
    answers = asked.ask(lm, asked.requests("chat"))
    assert answers == [*expected[:5], "", *expected[6:]]
    record = lm.record()["answers"]
    assert (record["total"], record["failed"]) == (10, 1)
    assert record["failures"][0]["documents"] == (5,)


@pytest.mark.parametrize("size", [1, 4])
def test_ctrl_c_is_no_recorded_failure(size, load, asked):
    lm = load("dense_llava", batch_size=size, on_error="record")
    lm.model.generate = hidden_ctrl_c
    with pytest.raises(KeyboardInterrupt):
        asked.ask(lm, asked.requests("chat"))
    assert not lm.answers.failures


def hidden_ctrl_c(**_: Any) -> None:
    try:
        raise KeyboardInterrupt
    finally:
        raise UnboundLocalError("a clean-up that fails")


def test_empty_answers_are_counted_and_many_of_them_warned_about(load, asked, monkeypatch):
    lm = load("dense_llava", batch_size=4)
    monkeypatch.setattr(lm.tokenizer, "batch_decode", lambda ids, **_: [" "] * len(ids))
    asked.ask(lm, asked.requests("chat"))
    assert (lm.answers.total, lm.answers.empty) == (11, 11)
    warnings = []
    monkeypatch.setattr("lmms_topoprune.harness.answers.logger.warning", warnings.append)
    lm.clean()
    assert warnings == ["lmms-topoprune: 11 of 11 answers are empty; read the scores with care"]
