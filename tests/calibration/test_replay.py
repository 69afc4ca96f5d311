"""Trials that start at a layer are, to the last bit, those that run everything."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from families import properties as holds
from families.inputs import prompts
from families.table import FAMILIES

from lmms_topoprune.calibration.loss import LossOracle
from lmms_topoprune.calibration.prompts import Prompter
from lmms_topoprune.calibration.replay import Replay, is_repeatable
from lmms_topoprune.surgery import decoder_layers, identity_layers

# Their later layers read keys and values of earlier ones.
NOT_REPEATABLE = {"gemma3n", "gemma3n_image", "gemma4"}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FAMILIES.keys() - {"idefics"}))  # refused: tests/surgery
@torch.no_grad()
def test_every_family(name):
    family = FAMILIES[name]
    model = holds.build(family, "eager")
    inputs = prompts(model, family.inputs)[0][0]
    layers = list(decoder_layers(model))
    if not is_repeatable(layers, lambda: holds.logits(model, inputs)):
        assert name in NOT_REPEATABLE
        return
    assert name not in NOT_REPEATABLE
    last = len(layers) - 1
    for skipped, layer in (((), 0), ((), last), ((0,), 1), ((0, last), 1), ((last,), 0)):
        with identity_layers(model, [*skipped, layer]):
            expected = holds.logits(model, inputs)
        replay = Replay.of(layers, lambda: holds.logits(model, inputs), skipped)
        with replay.without(layer, skipped):
            found = holds.logits(model, inputs)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert not any("forward" in layer.__dict__ for layer in layers)


@pytest.fixture
def oracle(tiny_llava, embedded_processor, samples):
    return LossOracle.of(tiny_llava(), Prompter(embedded_processor), samples[:6], batch_size=4)


def by_identity(oracle, layers):
    with identity_layers(oracle.model, layers):
        return oracle.mean()


def test_losses_are_those_without_the_layers(oracle):
    told = []
    oracle.measure((), [1, 2, 4], told.append)
    oracle.measure([3, 1], [2, 4], told.append)
    assert sum(told) == 5 * len(oracle.texts) and len(oracle.texts) > 1
    expected = {frozenset(s): by_identity(oracle, s) for s in ([1], [2], [4], [1, 2, 3], [1, 3, 4])}
    assert {skipped: loss for skipped, (loss, _) in oracle.measured.items()} == expected
    assert len(set(expected.values())) == 5


def test_layers_before_the_candidate_do_not_run(oracle):
    layers = decoder_layers(oracle.model)
    assert oracle._is_repeatable
    runs = np.zeros(len(layers), int)
    for i, layer in enumerate(layers):  # attention runs only if the layer does
        layer.self_attn.register_forward_hook(lambda *_, i=i: runs.__setitem__(i, runs[i] + 1))
    oracle.measure([4], [1, 3])
    # Once for all of them, and once for each candidate that comes before; skipped layers not again.
    assert runs.tolist() == [len(oracle.texts) * n for n in (1, 1, 2, 2, 1, 3)]


def test_nothing_is_left_behind_when_a_trial_fails(oracle):
    layers = list(decoder_layers(oracle.model))
    replay = Replay.of(layers, oracle.mean)
    before = oracle.mean()
    with pytest.raises(RuntimeError, match="out of memory"), replay.without(3):
        raise RuntimeError("out of memory")
    assert oracle.mean() == before
    assert not any("forward" in layer.__dict__ for layer in layers)


def test_forwards_that_accelerate_set_come_back(oracle):
    expected = {layer: by_identity(oracle, [layer]) for layer in (1, 4)}
    cpu_offload(oracle.model, execution_device="cpu")
    forwards = [layer.forward for layer in decoder_layers(oracle.model)]
    oracle.measure((), [1, 4])
    assert [layer.forward for layer in decoder_layers(oracle.model)] == forwards
    assert {layer: oracle.measured[frozenset([layer])][0] for layer in (1, 4)} == expected


def test_state_handed_between_layers_is_noticed(oracle):
    """Here layer 4 adds what layer 1 left behind; its losses are measured by running everything."""
    layers = list(decoder_layers(oracle.model))
    left = []
    layers[1].register_forward_hook(lambda _, args, output: left.append(args[0].mean()))
    layers[4].register_forward_pre_hook(lambda _, args: (args[0] + left.pop(),))
    assert not is_repeatable(layers, oracle.mean)
    oracle.measure([2], [3, 5])
    left.clear()
    assert oracle.measured[frozenset([2, 3])][0] == by_identity(oracle, [2, 3])
