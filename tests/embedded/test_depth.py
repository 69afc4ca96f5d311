"""What a layer is worth, measured by leaving it out: equal to a model without it."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from lmms_topoprune.surgery import fingerprint
from training import depth

Make = Callable[..., LlavaForConditionalGeneration]


@pytest.fixture(scope="module")
def model(tiny_llava: Make) -> LlavaForConditionalGeneration:
    return tiny_llava(layers=3)


def test_without_a_layer_is_the_model_that_never_had_it(
    model: LlavaForConditionalGeneration, embedded_processor: LlavaProcessor
) -> None:
    found = depth.deletion_costs(model, depth.answers(embedded_processor, 1))
    assert found["tokens"] == len(depth.cells())
    for index in range(3):
        smaller = copy.deepcopy(model)
        del smaller.model.language_model.layers[index]
        dense = depth.deletion_costs(smaller, depth.answers(embedded_processor, 1))["dense"]
        assert found["without"][index] == pytest.approx(dense, abs=1e-5)
    assert len({round(row["loss"], 5) for row in (found["dense"], *found["without"])}) == 4


def test_the_answer_is_judged_behind_the_whole_prompt(embedded_processor: LlavaProcessor) -> None:
    for judged in depth.answers(embedded_processor, 1):
        for ids, places in zip(judged.inputs["input_ids"], judged.places, strict=True):
            (last,) = places.nonzero()[0]
            assert embedded_processor.tokenizer.decode(ids[: last + 1]).endswith("ASSISTANT:")
        words = embedded_processor.tokenizer.batch_decode(judged.wanted[:, None])
        assert all(word.startswith(" ") for word in words)


def test_the_loss_of_a_text_is_its_own(
    model: LlavaForConditionalGeneration, embedded_processor: LlavaProcessor
) -> None:
    (judged,) = depth.text(embedded_processor.tokenizer, ["Where are the red circles?"] * 9, 2, 16)
    ids = judged.inputs["input_ids"]
    assert ids.shape == (2, 16)
    expected = model(input_ids=ids, labels=ids).loss.item()
    assert depth.deletion_costs(model, iter([judged]))["dense"]["loss"] == pytest.approx(expected, abs=1e-5)


def test_copies_are_alike_and_random_layers_are_not(model: LlavaForConditionalGeneration) -> None:
    copied = copy.deepcopy(model)
    layers = copied.model.language_model.layers
    layers[2] = copy.deepcopy(layers[0])
    assert isinstance(layers, nn.ModuleList)
    found = depth.similarity(copied)
    assert found[0, 2] == pytest.approx(1, abs=1e-5)
    assert abs(found[0, 1]) < 0.1
    assert torch.allclose(found.diagonal(), torch.ones(3), atol=1e-5)


def test_a_part_costs_what_a_model_without_it_gets_wrong(
    tiny_llava: Make, embedded_processor: LlavaProcessor
) -> None:
    model = tiny_llava(layers=2).eval()
    before = fingerprint(model)
    batches = list(depth.answers(embedded_processor, 1))
    costs = depth.part_costs(model, batches)
    assert fingerprint(model) == before

    def right() -> float:
        found = depth.deletion_costs(model, iter(batches))
        return float(found["dense"]["accuracy"])

    dense = right()
    layer = model.get_decoder().layers[1]
    half = layer.self_attn.o_proj.weight.shape[1] // 2
    layer.self_attn.o_proj.weight.data[:, half:] = 0
    assert costs[1]["last heads"] == pytest.approx(dense - right())
    layer.self_attn.o_proj.weight.data.zero_()
    assert costs[1]["attention"] == pytest.approx(dense - right())
    assert len(costs) == 2 and set(costs[0]) == {"attention", "first heads", "last heads", "mlp"}
