"""Training in miniature: it goes on where it was, grows by stacking, and repeats itself for a seed."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lmms_topoprune.embedded.batches import DEEP, SHALLOW, Batches
from lmms_topoprune.embedded.build import Size, build_model, build_processor
from lmms_topoprune.embedded.recipe import Recipe, VisionRecipe
from lmms_topoprune.embedded.train import grow, train
from lmms_topoprune.errors import InputError

pytestmark = pytest.mark.slow

TINY = Recipe(
    size=Size(layers=4, width=32, mlp=32, heads=2, vision_layers=1, vision_width=32),
    vision=VisionRecipe(steps=20, batch=2),
    shallow_layers=2,
    shallow_steps=2,
    deep_steps=2,
    decay_steps=2,
    warmup=1,
    batch=2,
)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    step = json.loads((folder / "checkpoint.json").read_text())["step"]
    return load_file(folder / f"model-{step}.safetensors")


class Killed(Exception):
    pass


def test_a_killed_run_ends_with_the_weights_of_an_undisturbed_one(tmp_path: Path) -> None:
    def die_at_step_3(line: str) -> None:
        if line.startswith("{") and json.loads(line)["step"] == 3:
            raise Killed

    train(TINY, tmp_path / "whole", every=1, say=lambda _: None)
    with pytest.raises(Killed):
        train(TINY, tmp_path / "killed", every=1, say=die_at_step_3)
    train(TINY, tmp_path / "killed", every=1, say=lambda _: None)
    whole, killed = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert whole.keys() == killed.keys()
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    with pytest.raises(InputError, match="another recipe"):
        train(replace(TINY, seed=1), tmp_path / "whole", say=lambda _: None)


def test_the_grown_decoder_is_the_shallow_one_on_itself() -> None:
    processor = build_processor()
    shallow = build_model(processor, replace(TINY.size, layers=TINY.shallow_layers), 0)
    layers = grow(shallow, processor, TINY).model.language_model.layers
    source = shallow.model.language_model.layers
    for index, layer in enumerate(layers):
        copied = dict(source[index % TINY.shallow_layers].named_parameters())
        assert all(torch.equal(p, copied[name]) for name, p in layer.named_parameters())


def test_a_batch_depends_on_seed_step_and_mix_alone() -> None:
    batches = Batches(build_processor(), seed=0, size=2, context=128)
    first, again = batches.draw(5, SHALLOW), batches.draw(5, SHALLOW)
    assert torch.equal(first.input_ids, again.input_ids)
    assert torch.equal(first.pixel_values, again.pixel_values)
    for other in (batches.draw(6, SHALLOW), batches.draw(5, DEEP)):
        assert not torch.equal(first.input_ids, other.input_ids)


def test_a_recipe_survives_json() -> None:
    assert Recipe.from_json(json.loads(json.dumps(asdict(TINY)))) == TINY
