"""Tokens as points: the same ones in every batch and on any number of processes, and content alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lmms_topoprune._util.disk_cache import Cache
from lmms_topoprune.calibration.collect import collect_views
from lmms_topoprune.calibration.norms import NormCounts, TokenNorms, count_norms, together
from lmms_topoprune.calibration.prompts import Prompter
from lmms_topoprune.calibration.ranks import Ranks, merged
from lmms_topoprune.calibration.recorder import POINTS, View
from lmms_topoprune.calibration.samples import Sample
from lmms_topoprune.calibration.tokens import SINKS, Draw, Points
from lmms_topoprune.errors import OptionError
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.pipeline import Planner
from lmms_topoprune.pipeline.checks import told_of_massive
from lmms_topoprune.surgery import decoder_layers

DRAW = Draw(40, 0.5, seed=3)
VIEW = View("residual", POINTS, DRAW)


@pytest.fixture(scope="module")
def model(tiny_llava):
    return tiny_llava()


@pytest.fixture(scope="module")
def prompter(embedded_processor):
    return Prompter(embedded_processor)


@pytest.fixture(scope="module")
def cloud(model, prompter, samples):
    return collect_views(model, prompter, samples[:12], [VIEW], batch_size=4)


def same(one, other):
    for name, value in vars(one.points[DRAW]).items():
        np.testing.assert_array_equal(value, vars(other.points[DRAW])[name])
    torch.testing.assert_close(one.vectors[VIEW], other.vectors[VIEW], atol=5e-6, rtol=1e-5)
    np.testing.assert_array_equal(one.norms.counts.sum(1), other.norms.counts.sum(1))
    np.testing.assert_allclose(one.norms.largest, other.norms.largest, rtol=1e-5)


@torch.no_grad()
def test_a_point_is_one_token_at_every_state(model, prompter, samples, cloud):
    """Compared with each sample alone through the plain model."""
    last = []
    hook = model.model.language_model.norm.register_forward_pre_hook(lambda _, args: last.append(args[0][0]))
    points, vectors = cloud.points[DRAW], cloud.vectors[VIEW]
    assert vectors.shape == (7, 40, 32) and len(points) == 40
    for sample in range(12):
        hidden = model(**prompter.encode([samples[sample]]), output_hidden_states=True).hidden_states
        states = torch.stack([*(h[0] for h in hidden[:-1]), last.pop()])
        mine = points.sample == sample
        torch.testing.assert_close(vectors[:, mine], states[:, points.position[mine]], atol=5e-6, rtol=1e-5)
    hook.remove()


@pytest.mark.parametrize("batch_size", [1, 5, 12])
def test_batches_do_not_matter(model, prompter, samples, cloud, batch_size):
    same(collect_views(model, prompter, samples[:12], [VIEW], batch_size=batch_size), cloud)


@pytest.mark.parametrize("world", [2, 5])
def test_processes_do_not_matter(model, prompter, samples, cloud, world):
    shares = [Ranks(rank, world) for rank in range(world)]
    same(
        merged(
            [
                collect_views(model, prompter, r.share(samples[:12]), [VIEW], numbers=r.numbers(12))
                for r in shares
            ]
        ),
        cloud,
    )


def test_a_batch_that_fails_half_way_leaves_nothing_behind(model, prompter, samples, cloud, monkeypatch):
    """Also where its points had begun to replace others."""
    layer = model.model.language_model.layers[3]
    forward = layer.forward

    def scarce(hidden_states, *args, **kwargs):
        if len(hidden_states) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(hidden_states, *args, **kwargs)

    monkeypatch.setattr(layer, "forward", scarce)
    same(collect_views(model, prompter, samples[:12], [VIEW], batch_size=6), cloud)


def test_points_carry_content(prompter, samples, cloud):
    """Image tokens, or tokens of an instruction: none of the template, no special one, none at the front."""
    points = cloud.points[DRAW]
    tokenizer, image = prompter.tokenizer, prompter.tokenizer.convert_tokens_to_ids("<image>")
    for sample, position, seen in zip(points.sample, points.position, points.image, strict=True):
        ids = prompter.encode([samples[sample]])["input_ids"][0].tolist()
        assert position >= SINKS
        assert (ids[position] == image) == seen
        if not seen:
            assert ids[position] not in tokenizer.all_special_ids
            end = len(ids) - len(tokenizer(" ASSISTANT:", add_special_tokens=False).input_ids)
            begin = max(i for i, each in enumerate(ids) if each == image) + 1
            assert begin <= position < end
            assert tokenizer.decode(ids[position]).strip() in samples[sample].instruction
    assert len(set(zip(points.sample, points.position, strict=True))) == 40
    assert len(set(points.sample)) > 8  # from all of the prompts


@pytest.mark.parametrize(("share", "images"), [(0.0, 0), (0.25, 10), (0.5, 20), (1.0, 40)])
def test_the_share_of_image_tokens(model, prompter, samples, share, images):
    draw = replace(DRAW, image_share=share)
    view = View("residual", POINTS, draw)
    found = collect_views(model, prompter, samples[:12], [view]).points[draw]
    assert (found.image.sum(), len(found)) == (images, 40)


def test_one_kind_fills_up_for_the_other():
    rng = np.random.default_rng(0)
    candidates = Points(*(np.arange(100),) * 2, np.arange(100) < 5, rng.random(100))
    for share in (0.0, 0.5, 1.0):
        chosen = Draw(30, share, 0).lowest(candidates)
        assert len(chosen) == 30 and candidates.image[chosen].sum() == (0 if share == 0 else 5)
    assert len(Draw(200, 0.5, 0).lowest(candidates)) == 100


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_drawing_batch_by_batch_is_drawing_at_once(share):
    """Whatever was left out before stays out, so nothing that is needed was thrown away."""
    rng = np.random.default_rng(1)
    every = Points(np.arange(300), np.zeros(300, int), rng.random(300) < 0.4, rng.random(300))
    draw, kept = Draw(50, share, 0), Points.none()
    for part in np.split(np.arange(300), [3, 40, 41, 200]):
        together_now = kept + every[part]
        kept = together_now[draw.lowest(together_now)]
    assert sorted(kept.sample) == sorted(every.sample[draw.lowest(every)])


def test_other_seeds_draw_other_tokens(model, prompter, samples, cloud):
    draw = replace(DRAW, seed=4)
    other = collect_views(model, prompter, samples[:12], [View("residual", POINTS, draw)]).points[draw]
    pairs = [set(zip(p.sample, p.position, strict=True)) for p in (other, cloud.points[DRAW])]
    assert len(pairs[0] & pairs[1]) < 30


def test_largest_and_median_norm():
    rng = np.random.default_rng(0)
    hidden = torch.from_numpy(rng.lognormal(2, 3, (3, 50, 8))).float()
    mask = torch.from_numpy(rng.random((3, 50)) < 0.7)
    norms = hidden.norm(dim=-1)[mask].numpy()
    whole = together([count_norms(hidden, mask)])
    halves = [together([count_norms(hidden[i : i + 1], mask[i : i + 1])]) for i in range(3)]
    summed = sum(halves[1:], halves[0])
    for found in (whole, summed):
        assert found.summary().largest[0] == pytest.approx(norms.max(), rel=1e-6)
        assert found.summary().median[0] == pytest.approx(np.sort(norms)[(len(norms) - 1) // 2], rel=0.02)
    assert (NormCounts.none(1) + whole).counts.sum() == mask.sum()


def test_a_jump_of_more_than_tenfold_is_massive():
    assert TokenNorms(np.array([1, 2, 30, 31.0]), np.array([1, 1, 1, 1.0])).massive == (1,)
    assert TokenNorms(np.array([1, 2, 19.0]), np.ones(3)).massive == ()
    assert TokenNorms(np.array([1, 30.0]), np.array([1, 10.0])).massive == ()  # every token grew


@pytest.fixture
def massive(embedded_processor):
    """A language model whose layer 3 does nothing but write a huge norm at the first position."""
    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 6, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(embedded_processor.tokenizer), **size)).eval()
    layer = decoder_layers(model)[3]
    for weight in (layer.self_attn.o_proj.weight, layer.mlp.down_proj.weight):
        torch.nn.init.zeros_(weight)

    def write(_, args, output):
        hidden = (output[0] if isinstance(output, tuple) else output).clone()
        hidden[:, 0, 0] += 1e4
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    layer.register_forward_hook(write)
    return model


def test_the_layer_that_writes_massive_activations_is_named_and_stays(massive, embedded_processor, tmp_path):
    texts = [Sample(f"How many red circles are there beside the {i} squares?") for i in range(12)]
    given = {"criterion": "cosine", "sparsity": 0.5, "samples": 12, "k": "3"}

    def plan(**more):
        planner = Planner(
            "rigged", massive, embedded_processor.tokenizer, samples=texts, cache=Cache(tmp_path)
        )
        return planner.plan(PruningOptions(**{**given, **more}))

    bare = plan()
    assert bare.parameters["massive"] == "3" and bare.massive_dropped == (3,)
    assert "are written by what is dropped (3)" in told_of_massive(bare)
    assert not replace(bare, parameters={"massive": "the third"}).massive_dropped  # somebody else's file
    for _ in range(2):  # from a pass, and from the cache
        kept = plan(protect_massive=True)
        assert kept.dropped == (1, 2, 4) and kept.parameters["massive"] == "3" and not kept.massive_dropped
    assert kept.scores == bare.scores and kept.hash != bare.hash
    with pytest.raises(OptionError, match=r"protect_massive \(1 layers write massive activations\) leave 3"):
        plan(protect_massive=True, sparsity=0.67)
    for name in ("zigzag_influence", "zigzags", "unions", "intersections"):
        assert PruningOptions(criterion=name).protect_massive
        assert 3 not in plan(criterion=name, point_count=60).dropped
    for name in (
        "topology",
        "multiscale",
        "topology_angle",
        "topology_angle_influence",
        "static",
        "shuffled",
    ):
        assert PruningOptions(criterion=name).protect_massive  # this project's own, and their controls
    for name in ("gardinazzi", "topovlm", "cosine", "block_influence", "angular", "knn_overlap"):
        assert not PruningOptions(criterion=name).protect_massive


def test_too_few_tokens_for_k_are_refused(massive, embedded_processor):
    with pytest.raises(OptionError, match=r"k is '10'; allowed: 1 <= k < point_count \(9\)"):
        PruningOptions(criterion="unions", point_count=9)
    planner = Planner("rigged", massive, embedded_processor.tokenizer, samples=[Sample("Red?")] * 3)
    with pytest.raises(Exception, match=r"samples have only .* tokens to draw from"):
        planner.plan(PruningOptions(criterion="unions", sparsity=0.34, samples=3))
