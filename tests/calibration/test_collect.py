"""The states kept are those of a plain forward pass, whatever the batch, the padding and the memory."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from lmms_topoprune.calibration.collect import by_length, collect, collect_views
from lmms_topoprune.calibration.prompts import RET_MARKER, Prompter
from lmms_topoprune.calibration.ranks import Ranks, merged
from lmms_topoprune.calibration.recorder import View
from lmms_topoprune.calibration.samples import Sample
from lmms_topoprune.calibration.tokens import Tokens
from lmms_topoprune.errors import InputError

STATES = ("residual", "norm")
SUMS = ("token_cosine", "relative_magnitude")


def points(found, state="residual"):
    return found.states()[state].points


@pytest.fixture
def model(tiny_llava):
    return tiny_llava()


@pytest.fixture(scope="module")
def plain(tiny_llava, embedded_processor, samples):
    """Every sample alone through the model, its hidden states kept by hand."""
    model = tiny_llava()
    return {
        suffix: [_alone(model, embedded_processor, s, suffix) for s in samples] for suffix in ("", RET_MARKER)
    }


def _alone(model, processor, sample, suffix):
    prompt = f"USER: <image>\n{sample.instruction} ASSISTANT:{suffix}"
    inputs = processor(text=[prompt], images=[sample.image], return_tensors="pt")
    inside, last = [], []
    text = model.model.language_model
    hooks = [x.post_attention_layernorm.register_forward_hook(_keep(inside)) for x in text.layers]
    hooks += [
        text.norm.register_forward_hook(_keep(inside)),
        text.norm.register_forward_pre_hook(_keep(last)),
    ]
    with torch.no_grad():
        hidden = model(**inputs, output_hidden_states=True).hidden_states
    for hook in hooks:
        hook.remove()
    residual = torch.stack([*(h[0] for h in hidden[:-1]), *last])
    is_image = inputs["input_ids"][0] == model.config.image_token_id
    return {"residual": residual, "norm": torch.stack(inside), "image": is_image}


def _keep(found):
    """A hook that keeps its last argument: a module's output, or the input of a pre-hook."""

    def hook(*arguments):
        value = arguments[-1]
        found.append(value[0] if isinstance(value, torch.Tensor) else value[0][0])

    return hook


def _expected(alone, token, state):
    pick = {
        "last": lambda h, i: h[:, -1],
        "ret": lambda h, i: h[:, -1],
        "mean": lambda h, i: h.mean(1),
        "mean_image": lambda h, i: h[:, i].mean(1),
        "mean_text": lambda h, i: h[:, ~i].mean(1),
    }[token]
    return torch.stack([pick(a[state], a["image"]) for a in alone], 1).numpy()


@pytest.mark.parametrize("token", ["last", "ret", "mean", "mean_image", "mean_text"])
@pytest.mark.parametrize("batch_size", [1, 5, 32])
def test_states_are_those_of_a_plain_pass(model, embedded_processor, samples, plain, token, batch_size):
    found = collect(model, embedded_processor, samples, token=token, states=STATES, batch_size=batch_size)
    for state in STATES:
        expected = _expected(plain[RET_MARKER if token == "ret" else ""], token, state)
        np.testing.assert_allclose(points(found, state), expected, atol=5e-6)


def test_left_padding_gives_the_same_states(model, embedded_processor, samples, plain, monkeypatch):
    encode = Prompter.encode
    monkeypatch.setattr(Prompter, "encode", lambda self, batch: encode(self, batch, side="left"))
    found = collect(model, embedded_processor, samples, batch_size=32)
    np.testing.assert_allclose(points(found), _expected(plain[""], "last", "residual"), atol=5e-6)


@pytest.mark.parametrize("token", ["last", "mean"])
def test_a_version_that_reads_padding_would_be_caught(
    model, embedded_processor, samples, plain, token, monkeypatch
):
    masked = Tokens.of

    def careless(inputs, image_ids, special_ids=()):
        return replace(masked(inputs, image_ids), mask=torch.ones_like(inputs["input_ids"], dtype=torch.bool))

    monkeypatch.setattr(Tokens, "of", careless)
    found = collect(model, embedded_processor, samples, token=token, batch_size=32)
    assert abs(points(found) - _expected(plain[""], token, "residual")).max() > 1e-3


def test_sums_are_means_over_all_tokens(model, embedded_processor, samples, plain):
    found = collect(model, embedded_processor, samples, states=(), sums=SUMS, batch_size=7)
    tokens = np.concatenate([a["residual"].numpy() for a in plain[""]], 1)  # (L + 1, tokens, d)
    before, after = tokens[:-1], tokens[1:]
    norm = np.linalg.norm
    cosine = (before * after).sum(-1) / norm(before, axis=-1) / norm(after, axis=-1)
    np.testing.assert_allclose(found.sums.token_cosine, cosine.mean(1), atol=1e-5)
    magnitude = norm(after - before, axis=-1) / norm(after, axis=-1)
    np.testing.assert_allclose(found.sums.relative_magnitude, magnitude.mean(1), atol=1e-5)


def test_several_tokens_are_kept_in_one_pass(model, embedded_processor, samples):
    tokens = ("last", "mean", "mean_image", "mean_text")
    views = [View(state, token) for state in STATES for token in tokens]
    together = collect_views(model, Prompter(embedded_processor), samples, views, SUMS)
    for token in tokens:
        alone = collect(model, embedded_processor, samples, token=token, states=STATES, sums=SUMS)
        found, one = together.states(*(v for v in views if v.token == token)), alone.states()
        assert all(torch.equal(found[state].values, one[state].values) for state in STATES)
        assert all((together.sums.means[name] == alone.sums.means[name]).all() for name in SUMS)


def test_the_mark_of_ret_is_not_forgotten(model, embedded_processor, samples):
    with pytest.raises(ValueError, match="only with marked=True"):
        collect_views(model, Prompter(embedded_processor), samples, [View("residual", "ret")])


def test_samples_without_an_image_may_stand_between_others(model, embedded_processor, samples):
    mixed = [s if i % 3 else Sample(s.instruction) for i, s in enumerate(samples)]
    together = points(collect(model, embedded_processor, mixed, batch_size=8))
    alone = points(collect(model, embedded_processor, mixed, batch_size=1))
    np.testing.assert_allclose(together, alone, atol=5e-6)


def test_batches_hold_samples_of_like_length(embedded_processor, samples):
    prompter = Prompter(embedded_processor)
    batches = by_length(prompter, samples, 8)
    assert sorted(i for b in batches for i in b) == list(range(32))
    lengths = [[prompter.length(samples[i]) for i in b] for b in batches]
    assert all(min(a) >= max(b) for a, b in pairwise(lengths))


@pytest.mark.parametrize("world", [3, 5, 20])
def test_shares_of_processes_merge_to_the_whole(model, embedded_processor, samples, world):
    """Also where there are more processes than samples."""
    views = [View("residual", "last"), View("residual", "mean"), View("norm", "mean")]
    whole = collect_views(model, Prompter(embedded_processor), samples[:12], views, SUMS)
    shares = [Ranks(rank, world).share(samples[:12]) for rank in range(world)]
    found = merged(
        [collect_views(model, Prompter(embedded_processor), share, views, SUMS) for share in shares]
    )
    for view in views:
        np.testing.assert_allclose(found.vectors[view], whole.vectors[view], atol=5e-6)
    for name in SUMS:
        np.testing.assert_allclose(found.sums.means[name], whole.sums.means[name], atol=1e-6)
    assert found.sums.tokens == whole.sums.tokens


def test_nothing_is_left_behind(model, embedded_processor, samples):
    model.train()
    side = embedded_processor.tokenizer.padding_side
    collect(model, embedded_processor, samples[:1])  # transformers adds hooks of its own at first use
    hooks = _hooks(model)
    collect(model, embedded_processor, samples[:8], states=STATES)
    assert model.training and embedded_processor.tokenizer.padding_side == side
    assert _hooks(model) == hooks
    assert all(p.grad is None for p in model.parameters())


def _hooks(model):
    return [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]


def test_logits_are_made_for_one_position_and_there_is_no_cache(
    model, embedded_processor, samples, monkeypatch
):
    seen = []
    hook = model.lm_head.register_forward_hook(lambda _, args, out: seen.append(out.shape))
    forward = model.model.language_model.forward
    caches = []

    def listen(*args, **kwargs):
        found = forward(*args, **kwargs)
        caches.append(found.past_key_values)
        return found

    monkeypatch.setattr(model.model.language_model, "forward", listen)
    collect(model, embedded_processor, samples[:8], batch_size=8)
    hook.remove()
    assert [shape[1] for shape in seen] == [1] and caches == [None]


def test_only_the_states_are_kept(model, embedded_processor, samples):
    found = collect(model.bfloat16(), embedded_processor, samples, states=STATES)
    for states in found.vectors.values():
        assert states.dtype == torch.bfloat16 and tuple(states.shape) == (7, 32, 32)
        assert states.untyped_storage().nbytes() == 2 * states.numel()


def test_out_of_memory_halves_the_batch_and_goes_on(model, embedded_processor, samples, monkeypatch):
    whole = collect(model, embedded_processor, samples, batch_size=16, sums=SUMS)
    sizes = []
    layer = model.model.language_model.layers[3]
    forward = layer.forward

    def scarce(hidden_states, *args, **kwargs):
        sizes.append(len(hidden_states))
        if len(hidden_states) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(hidden_states, *args, **kwargs)

    monkeypatch.setattr(layer, "forward", scarce)
    halved = collect(model, embedded_processor, samples, batch_size=16, sums=SUMS)
    assert sizes[:3] == [16, 8, 4] and set(sizes[2:]) == {4}
    np.testing.assert_allclose(points(halved), points(whole), atol=5e-6)
    # A batch that failed half-way must not count twice.
    np.testing.assert_allclose(halved.sums.token_cosine, whole.sums.token_cosine, atol=1e-6)


def test_a_sample_that_does_not_fit_alone_is_named(model, embedded_processor, samples, monkeypatch):
    def scarce(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(model.model.language_model.layers[0], "forward", scarce)
    with pytest.raises(InputError, match="alone does not fit into memory"):
        collect(model, embedded_processor, samples)


def test_states_that_do_not_fit_are_not_blamed_on_a_sample(model, embedded_processor, samples, monkeypatch):
    """Smaller batches would not help: what is kept of all samples is one block."""
    empty, sizes = torch.empty, []

    def scarce(shape, **kwargs):
        if isinstance(shape, tuple) and len(shape) == 3 and shape[1] == len(samples):
            sizes.append(shape)
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return empty(shape, **kwargs)

    monkeypatch.setattr("lmms_topoprune.calibration.recorder.torch.empty", scarce)
    with pytest.raises(InputError, match=f"samples is {len(samples)}, .* MB of memory"):
        collect(model, embedded_processor, samples, batch_size=4)
    assert len(sizes) == 1


def test_a_norm_in_another_precision_is_kept_in_that_of_the_rest(model, embedded_processor, samples):
    model.bfloat16()
    model.model.language_model.norm.register_forward_hook(lambda _, args, output: output.float())
    model.lm_head.register_forward_pre_hook(lambda _, args: (args[0].bfloat16(),))
    found = collect(model, embedded_processor, samples[:4], states=("norm",)).states()["norm"].values
    assert found.dtype == torch.bfloat16 and torch.isfinite(found).all()


def test_other_errors_are_not_taken_for_scarce_memory(model, embedded_processor, samples, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(model.model.language_model.layers[0], "forward", broken)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        collect(model, embedded_processor, samples)


def test_a_state_that_is_not_finite_is_named(model, embedded_processor, samples):
    with torch.no_grad():
        model.model.language_model.layers[2].mlp.down_proj.weight[0, 0] = float("nan")
    with pytest.raises(
        InputError, match=r"residual state at layer 3 of calibration sample \d+ is not finite"
    ):
        collect(model, embedded_processor, samples)


def test_a_family_without_the_norm_is_told_so(model, embedded_processor, samples):
    for layer in model.model.language_model.layers:
        layer.norm_before_mlp = layer.post_attention_layernorm
        del layer.post_attention_layernorm
    with pytest.raises(
        InputError, match=r"state is 'norm', but decoder layer 0 .* allowed for this family: residual"
    ):
        collect(model, embedded_processor, samples, states=("norm",))


@pytest.fixture
def expanding(model, monkeypatch):
    """A model that makes its sequence longer inside, as some families do with images."""
    forward = model.model.language_model.forward

    def longer(*, inputs_embeds, attention_mask, **options):
        options["position_ids"] = None
        first, mask = inputs_embeds[:, :1], attention_mask[:, :1]
        embeds = torch.cat([first, first, inputs_embeds], 1)
        return forward(
            inputs_embeds=embeds, attention_mask=torch.cat([mask, mask, attention_mask], 1), **options
        )

    monkeypatch.setattr(model.model.language_model, "forward", longer)
    return model


@pytest.mark.parametrize("token", ["last", "mean"])
def test_a_model_that_expands_images_inside_goes_sample_by_sample(
    expanding, embedded_processor, samples, token
):
    batched = points(collect(expanding, embedded_processor, samples[:8], token=token, batch_size=8))
    alone = points(collect(expanding, embedded_processor, samples[:8], token=token, batch_size=1))
    np.testing.assert_array_equal(batched, alone)


def test_image_tokens_that_cannot_be_found_are_refused(expanding, embedded_processor, samples):
    with pytest.raises(InputError, match="token is 'mean_image', but this model expands images inside"):
        collect(expanding, embedded_processor, samples, token="mean_image")


def test_a_sample_without_an_image_has_no_image_tokens(model, embedded_processor):
    with pytest.raises(InputError, match="token is 'mean_image', but a calibration sample has no such token"):
        collect(model, embedded_processor, [Sample("What is red?")], token="mean_image")
