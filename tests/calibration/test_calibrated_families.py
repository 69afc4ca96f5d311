"""Every registered family: states are those of a plain pass, with its own image tokens and padding."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from vision_families import BUILDERS, Alone, Tiny, mixed_samples

from lmms_topoprune._util.disk_cache import Cache
from lmms_topoprune.calibration import collect as collecting
from lmms_topoprune.calibration.collect import collect
from lmms_topoprune.calibration.loss import LossOracle
from lmms_topoprune.calibration.prompts import Prompter
from lmms_topoprune.calibration.samples import Sample
from lmms_topoprune.calibration.tokens import Tokens
from lmms_topoprune.errors import InputError
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.pipeline import make_plan

pytestmark = pytest.mark.slow

SAMPLES = mixed_samples()
TEXTS = [Sample(sample.instruction) for sample in SAMPLES]
TOKENS = ("last", "mean", "mean_text", "mean_image")
IMAGE_TOKENS = {"llava": 4, "gemma3": 4, "idefics2": 4, "instructblip": 4, "llama_vision": 0}
NEEDS_IMAGES = ("llama_vision", "instructblip")
CLOSE = {"atol": 2e-4, "rtol": 1e-4}


def points(found):
    """(L + 1, N, d): the residual states."""
    return found.states()["residual"].points


@cache
def tiny(name: str) -> Tiny:
    return Tiny.of(name)


@cache
def plain(name: str) -> tuple[Alone, ...]:
    return tuple(tiny(name).alone(sample) for sample in SAMPLES)


def expected(name: str, token: str) -> np.ndarray:
    return torch.stack([alone.vector(token) for alone in plain(name)], 1).numpy()


def tokens_of(name: str) -> tuple[str, ...]:
    return TOKENS[:3] if name == "llama_vision" else TOKENS


@pytest.fixture
def pad_left(monkeypatch):
    encode = Prompter.encode
    monkeypatch.setattr(Prompter, "encode", lambda self, batch: encode(self, batch, side="left"))


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("name", BUILDERS)
def test_states_are_those_of_a_plain_pass(name, batch_size):
    made = tiny(name)
    for token in tokens_of(name):
        found = collect(made.model, made.processor, SAMPLES, token=token, batch_size=batch_size)
        np.testing.assert_allclose(points(found), expected(name, token), **CLOSE, err_msg=token)


@pytest.mark.parametrize("name", BUILDERS)
def test_padding_on_the_left_is_not_read(name, pad_left):
    made = tiny(name)
    for token in tokens_of(name):
        found = collect(made.model, made.processor, SAMPLES, token=token, batch_size=3)
        np.testing.assert_allclose(points(found), expected(name, token), **CLOSE, err_msg=token)


@pytest.mark.parametrize("name", BUILDERS)
def test_a_version_that_reads_padding_would_be_caught(name, monkeypatch):
    masked = Tokens.of

    def careless(inputs, image_ids, special_ids=()):
        return replace(masked(inputs, image_ids), mask=torch.ones_like(inputs["input_ids"]).bool())

    monkeypatch.setattr(Tokens, "of", careless)
    made = tiny(name)
    for token in ("last", "mean"):
        found = collect(made.model, made.processor, SAMPLES, token=token, batch_size=3)
        assert abs(points(found) - expected(name, token)).max() > 0.01


@pytest.mark.parametrize("name", BUILDERS)
def test_image_features_are_where_pixels_make_a_difference(name):
    counts = [int(alone.image.sum()) for alone in plain(name)]
    if name in IMAGE_TOKENS:
        assert counts == [IMAGE_TOKENS[name]] * len(SAMPLES)
    else:  # these families take more tokens for a larger image
        assert len(set(counts)) > 1 and min(counts) > 0


def test_the_begin_of_image_mark_taken_for_an_image_would_be_caught(monkeypatch):
    made = tiny("gemma3")
    assert made.processor.image_token_id != made.model.config.image_token_id
    monkeypatch.setattr(collecting, "image_token_ids", lambda *_: {3, 5})
    found = collect(made.model, made.processor, SAMPLES, token="mean_image")
    assert abs(points(found) - expected("gemma3", "mean_image")).max() > 0.01


@pytest.mark.parametrize("name", [name for name in BUILDERS if name not in NEEDS_IMAGES])
def test_text_alone_between_images(name):
    made = tiny(name)
    mixed = [SAMPLES[0], *TEXTS[1:4], SAMPLES[4]]
    found = collect(made.model, made.processor, mixed, batch_size=3, sums=("token_cosine",))
    alone = torch.stack([made.alone(sample).vector("last") for sample in mixed], 1).numpy()
    np.testing.assert_allclose(points(found), alone, **CLOSE)


@pytest.mark.parametrize("name", NEEDS_IMAGES)
def test_a_family_that_needs_images_says_so(name):
    made = tiny(name)
    with pytest.raises(InputError, match=r"calibration sample 2 has no image, but .* without one; allowed"):
        collect(made.model, made.processor, [*SAMPLES[:2], *TEXTS], states=(), sums=("token_cosine",))


def test_cross_attention_leaves_no_image_tokens():
    made = tiny("llama_vision")
    with pytest.raises(InputError, match="token is 'mean_image', but this model reads images by cross atten"):
        collect(made.model, made.processor, SAMPLES, token="mean_image")
    options = PruningOptions(sparsity=0.2, criterion="block_influence", samples=8, token="mean_image", k="2")
    with pytest.raises(InputError, match="token is 'mean_image'"):  # also where no token is read
        make_plan(made.model, made.processor, options, name="tiny", progress=False, cache=Cache(None))


@pytest.mark.parametrize("name", BUILDERS)
def test_the_loss_of_an_answer_does_not_depend_on_the_batch(name):
    made = tiny(name)
    alone, together = (LossOracle.of(made.model, Prompter(made.processor), SAMPLES, n).mean() for n in (1, 3))
    assert alone == pytest.approx(together, abs=1e-4)


@pytest.mark.parametrize("criterion", ["topology", "cosine", "block_influence"])
@pytest.mark.parametrize("name", ["llava_onevision", "qwen3_vl", "gemma3", "llama_vision", "instructblip"])
def test_a_plan_from_end_to_end(name, criterion):
    made = tiny(name)
    options = PruningOptions(sparsity=0.2, criterion=criterion, samples=8, k="2")
    plan = make_plan(made.model, made.processor, options, name=name, progress=False)
    assert plan.layers == 6 and len(plan.dropped) == 1
    assert plan.calibration["samples"] == 8 and np.isfinite(plan.scores).all()
