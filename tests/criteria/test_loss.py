"""Loss-based criteria against a computation by hand, one sample at a time and without padding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lmms_topoprune.calibration.loss import ANSWER_TOKENS, LossOracle
from lmms_topoprune.calibration.prompts import Prompter
from lmms_topoprune.calibration.samples import Sample
from lmms_topoprune.calibration.states import DecoderLayers
from lmms_topoprune.criteria import greedy, output_change, taylor
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.selection import select
from lmms_topoprune.surgery import decoder_layers, delete_layers

OPTIONS = PruningOptions(sparsity=0.3, criterion="greedy")  # 2 of 6 layers


@pytest.fixture(scope="module")
def llava(tiny_llava, embedded_processor, samples):
    """A model, its oracle, and every sample's sequence with the place where the answer begins."""
    model = tiny_llava()
    chosen = samples[:6]
    oracle = LossOracle.of(model, Prompter(embedded_processor), chosen, batch_size=4)
    return model, oracle, [_answered(model, embedded_processor, s) for s in chosen]


@pytest.fixture(scope="module")
def language_model(embedded_processor):
    tokenizer = embedded_processor.tokenizer
    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 6, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **size)).eval()
    texts = ["Is the red circle left of the blue square?", "How many?", "The scene has two large crosses."]
    oracle = LossOracle.of(model, Prompter(tokenizer), [Sample(t) for t in texts], batch_size=2)
    return model, oracle, [({"input_ids": tokenizer(t, return_tensors="pt").input_ids}, 1) for t in texts]


def _answered(model, processor, sample):
    prompt = f"USER: <image>\n{sample.instruction} ASSISTANT:"
    inputs = dict(processor(text=[prompt], images=[sample.image], return_tensors="pt"))
    start = inputs["input_ids"].shape[1]
    inputs["input_ids"] = model.generate(**inputs, max_new_tokens=ANSWER_TOKENS, do_sample=False)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    return inputs, start


def _by_hand(model, sequences):
    """The mean negative log-oracle of all tokens from `start` on, differentiable."""
    losses = []
    for inputs, start in sequences:
        logs = model(**inputs, use_cache=False).logits[0].log_softmax(-1)
        ids = inputs["input_ids"][0]
        losses += [-logs[i - 1, ids[i]] for i in range(start, len(ids))]
    return torch.stack(losses).mean()


@pytest.mark.parametrize("setting", ["llava", "language_model"])
def test_the_loss(setting, request):
    model, oracle, sequences = request.getfixturevalue(setting)
    assert oracle.mean() == pytest.approx(_by_hand(model, sequences).item(), abs=1e-5)


@pytest.mark.parametrize("setting", ["llava", "language_model"])
def test_taylor_is_the_sum_of_weight_times_gradient(setting, request):
    model, oracle, sequences = request.getfixturevalue(setting)
    _by_hand(model, sequences).backward()
    expected = [
        sum((p * p.grad).abs().sum().item() for p in layer.parameters() if p.dim() == 2)
        for layer in decoder_layers(model)
    ]
    model.zero_grad()
    found = taylor.score(oracle)
    np.testing.assert_allclose(-found.values, expected, rtol=1e-4)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("setting", ["llava", "language_model"])
def test_greedy_removes_the_layer_that_the_loss_misses_least(setting, request):
    model, oracle, sequences = request.getfixturevalue(setting)
    removed = []
    for _ in range(2):
        losses = {}
        for layer in {1, 2, 3, 4} - set(removed):
            with torch.no_grad(), delete_layers(model, [*removed, layer]):
                losses[layer] = _by_hand(model, sequences).item()
        removed.append(min(losses, key=losses.get))
    scores = greedy.score(oracle, DecoderLayers(6), OPTIONS)
    assert np.argsort(-scores.values)[:2].tolist() == removed
    assert select(scores, 2) == tuple(sorted(removed))


def test_greedy_leaves_alone_what_cannot_be_deleted(language_model):
    _, oracle, _ = language_model
    layers = DecoderLayers(6, frozenset({1, 2}))
    assert set(np.flatnonzero(greedy.score(oracle, layers, OPTIONS).values)) == {3, 4}


def test_greedy_measures_every_set_of_layers_once(language_model, monkeypatch):
    """The order is nested: a sweep pays for its highest sparsity alone."""
    _, oracle, _ = language_model
    fresh, calls, measure = replace(oracle, measured={}, reused_seconds=0.0), [], LossOracle.measure

    def counted(self, skipped, more, advance):
        calls.extend(more)
        measure(self, skipped, more, advance)

    monkeypatch.setattr(LossOracle, "measure", counted)
    layers = DecoderLayers(6)
    low = greedy.score(fresh, layers, OPTIONS).values
    assert len(calls) == 4 + 3
    high = greedy.score(fresh, layers, replace(OPTIONS, sparsity=0.5)).values
    assert len(calls) == 4 + 3 + 2
    assert set(np.flatnonzero(low)) < set(np.flatnonzero(high))
    again = [seconds for skipped, (_, seconds) in fresh.measured.items() if len(skipped) <= 2]
    assert fresh.reused_seconds == pytest.approx(sum(again)) and all(again)


@pytest.mark.parametrize("setting", ["llava", "language_model"])
def test_output_change_is_the_cosine_of_the_outputs(setting, request):
    """Computed one sample at a time, with the layers deleted; then the same one layer after the other."""
    model, oracle, sequences = request.getfixturevalue(setting)

    @torch.no_grad()
    def outputs():
        found = []
        last = decoder_layers(model)[-1]
        hook = last.register_forward_hook(lambda _, a, o: found.append(o[0] if isinstance(o, tuple) else o))
        for inputs, _ in sequences:
            model(**inputs, use_cache=False)
        hook.remove()
        return torch.cat([each.flatten(0, -2) for each in found])

    whole = outputs()

    def cosine(dropped):
        with delete_layers(model, dropped):
            return torch.cosine_similarity(whole, outputs(), dim=-1).mean().item()

    found = output_change.score(oracle, DecoderLayers(6)).values
    # The last layer cannot be listened to once it is deleted.
    np.testing.assert_allclose(found[:5], [cosine([layer]) for layer in range(5)], atol=1e-5)
    removed = []
    for _ in range(2):
        removed.append(max({1, 2, 3, 4} - set(removed), key=lambda layer: cosine([*removed, layer])))
    order = output_change.stepwise(oracle, DecoderLayers(6), OPTIONS).values
    assert np.argsort(-order)[:2].tolist() == removed
