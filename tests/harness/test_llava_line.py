"""LLaVA-NeXT and LLaVA-OneVision through the registered models: batches answer like single requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from families import wrapped
from lmms_eval import models

from lmms_topoprune.compat.videos import video_readers_optional

pytestmark = pytest.mark.slow

FAMILIES = ("llava_next", "llava_onevision")
KINDS = ("simple", "chat")
# Other sizes, other tiles: the images of a batch have different numbers of tokens.
SIZES = ((56, 56), (112, 56), (56, 112), (64, 48))


@pytest.fixture(scope="module", params=FAMILIES)
def family_folder(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    config, processor = wrapped.BUILDERS[request.param]()
    config.text_config.sliding_window = None  # so that the last token sees all others
    torch.manual_seed(0)
    model = getattr(hf, type(config).__name__.replace("Config", "ForConditionalGeneration"))(config)
    with torch.no_grad():  # so that the answer depends on the question
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(12.0)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def shapes(asked: Any) -> Any:
    """Seven questions; images of four shapes, one question with two of them, and one with none."""
    docs = [dict(doc) for doc in asked.docs[:7]]
    for number, doc in enumerate(docs):
        doc["images"] = [
            image.resize(SIZES[(number + place) % 4]) for place, image in enumerate(doc["images"])
        ]
    docs[5]["images"] = []
    return type(asked)(docs)


def create(folder: Path, kind: str, **given: Any) -> Any:
    made = models.get_model("topopruned_llava", force_simple=kind == "simple")
    return made(pretrained=str(folder), self_test=False, layers="2+4", **given)


@pytest.mark.parametrize("kind", KINDS)
def test_batches_answer_like_single_requests(kind: str, family_folder: Path, shapes: Any) -> None:
    requests = shapes.requests(kind)
    single = shapes.ask(create(family_folder, kind), requests)
    assert len(set(single)) > 3, "the questions have to tell right from wrong"
    assert shapes.ask(create(family_folder, kind, batch_size=3), requests) == single


@torch.no_grad()
def test_the_logits_of_a_batch_are_those_of_single_requests(family_folder: Path, shapes: Any) -> None:
    lm = create(family_folder, "chat")
    lm.task_dict = {"tiny": {"test": shapes.docs}}
    prompts = [lm._prompt(request) for request in shapes.requests("chat")]
    batch = lm.network(**lm._encode(prompts)).logits[:, -1]
    for row, prompt in zip(batch, prompts, strict=True):
        torch.testing.assert_close(
            row, lm.network(**lm._encode([prompt])).logits[0, -1], atol=1e-4, rtol=1e-4
        )
    lm.tokenizer.padding_side = "right"
    other = lm.network(**lm._encode(prompts)).logits[:, -1]
    assert (other - batch).abs().max() > 1e-2


@pytest.mark.parametrize("kind", KINDS)
def test_the_dense_reference_answers_like_llava_hf(kind: str, family_folder: Path, shapes: Any) -> None:
    with video_readers_optional():
        original = models.get_model("llava_hf", force_simple=kind == "simple")
    theirs = original(pretrained=str(family_folder), device="cpu", device_map="cpu", dtype="float32")
    ours = models.get_model("dense_llava", force_simple=kind == "simple")(pretrained=str(family_folder))
    seen = type(shapes)([doc for doc in shapes.docs if doc["images"]])  # it cannot do without an image
    assert seen.ask(ours, seen.requests(kind)) == seen.ask(theirs, seen.requests(kind))
