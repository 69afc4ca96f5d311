"""Likelihoods with images: equal to a plain computation, alone and in batches, on simple and chat models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lmms_eval.api.instance import Instance

from lmms_topoprune.errors import GenerationError

CHOICES = (" yes", " no", " a red circle")
KINDS = ("simple", "chat")


def visuals(doc: dict[str, Any]) -> list[Any]:
    return doc["images"]


def requests(docs: list[dict[str, Any]]) -> list[Instance]:
    """Every question with every choice, as lmms-eval's multiple choice makes them."""
    return [
        Instance(
            "loglikelihood",
            (doc["question"], choice, visuals, number, "tiny", "test"),
            index,
            {"task": "tiny", "doc_id": number, "repeats": 1},
        )
        for number, doc in enumerate(docs)
        for index, choice in enumerate(CHOICES)
    ]


def likelihoods(lm: Any, docs: list[dict[str, Any]]) -> list[tuple[float, bool]]:
    lm.task_dict = {"tiny": {"test": docs}}
    return lm.loglikelihood(requests(docs))


@torch.no_grad()
def plain(lm: Any, doc: dict[str, Any], choice: str) -> float:
    """One at a time, token by token, from the logits of the prompt that the processor makes."""
    lm.task_dict = {"tiny": {"test": [doc]}}
    prompt = lm.context_prompt(requests([doc])[0])
    words = lm.hf_processor.tokenizer
    given = {"images": list(prompt.images)} if prompt.images else {}
    inputs = lm.hf_processor(text=[prompt.text + choice], return_tensors="pt", **given)
    inputs.pop("labels", None)
    count = len(words(prompt.text + choice).input_ids) - len(words(prompt.text).input_ids)
    logits = lm.network(**inputs).logits[0]
    ids = inputs["input_ids"][0]
    logits = logits[-len(ids) :]
    return -sum(float(logits[-n - 1].log_softmax(-1)[ids[-n]]) for n in range(1, count + 1))


@pytest.mark.parametrize("kind", KINDS)
def test_likelihoods_are_those_of_a_plain_computation(kind, load, asked):
    docs = asked.docs[:4]  # one with two images
    lm = load("topopruned_llava", kind, layers="2", batch_size=5)
    found = likelihoods(lm, docs)
    for number, doc in enumerate(docs):
        for index, choice in enumerate(CHOICES):
            value, greedy = found[number * len(CHOICES) + index]
            assert value == pytest.approx(plain(lm, doc, choice), abs=1e-3)
            assert greedy in (True, False)
    single = likelihoods(load("topopruned_llava", kind, layers="2"), docs)
    assert [value for value, _ in found] == pytest.approx([value for value, _ in single], abs=1e-3)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in single]


def test_the_image_is_in_the_context(load, asked):
    lm = load("dense_llava")
    docs = asked.docs[:2]
    swapped = [{**docs[0], "images": docs[1]["images"]}, {**docs[1], "images": docs[0]["images"]}]
    one, other = likelihoods(lm, docs), likelihoods(lm, swapped)
    assert max(abs(a[0] - b[0]) for a, b in zip(one, other, strict=True)) > 1e-3


def test_what_the_model_would_say_is_greedy(load, asked):
    lm = load("dense_llava")
    doc = asked.docs[0]
    lm.task_dict = {"tiny": {"test": [doc]}}
    prompt = lm.context_prompt(requests([doc])[0])
    with torch.no_grad():
        token = int(lm.network(**lm.encode_prompts([prompt])).logits[0, -1].argmax())
    said = lm.tokenizer.decode([token])
    request = requests([doc])[0]
    request.arguments = (doc["question"], said, *request.args[2:])
    value, greedy = lm.loglikelihood([request])[0]
    assert greedy and value > 0


def test_a_failure_advises_nothing_that_cannot_help(load, asked, monkeypatch):
    lm = load("dense_llava")
    monkeypatch.setattr(lm, "encode_prompts", lambda _: 1 / 0)
    with pytest.raises(GenerationError, match="ZeroDivisionError") as end:
        likelihoods(lm, asked.docs[:1])
    assert "on_error" not in str(end.value)
