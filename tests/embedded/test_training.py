"""Training in miniature: it goes on where it was, can be prolonged, and repeats itself for a seed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlavaProcessor

from lmms_topoprune.errors import InputError
from training.batches import IGNORE, Batches
from training.conversations import EARLY, LATE
from training.embedded import build
from training.embedded.recipe import Recipe, VisionRecipe
from training.embedded.train import train
from training.loop import finished
from training.optimizer import Schedule, orthogonal

pytestmark = pytest.mark.slow

TINY = Recipe(
    size=build.Size(layers=2, width=32, mlp=32, heads=2, vision_layers=1, vision_width=32),
    vision=VisionRecipe(steps=5, batch=2),
    start=(),
    align=5,
    early=2,
    warmup=1,
    batch=2,
)


def tiny_run(
    folder: Path, steps: int = 4, say: Callable[[str], None] = lambda _: None, **recipe: int
) -> Path:
    """A run with a checkpoint at every step, whose last two steps decay; its last checkpoint."""
    train(replace(TINY, **recipe), folder, steps=steps, decay=2, every=1, per_cell=1, say=say)
    return finished(folder)


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoint / "model.safetensors")


def same(one: Path, other: Path) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run of four steps."""
    folder = tmp_path_factory.mktemp("whole")
    tiny_run(folder)
    return folder


@pytest.mark.parametrize("moment", [1, 3])
def test_a_killed_run_ends_with_the_weights_of_an_undisturbed_one(
    whole: Path, tmp_path: Path, moment: int
) -> None:
    def die(line: str) -> None:
        if line.startswith("{") and json.loads(line)["step"] == moment:
            raise Killed

    with pytest.raises(Killed):
        tiny_run(tmp_path, say=die)
    assert same(tiny_run(tmp_path), finished(whole))


def test_a_prolonged_run_ends_as_if_it_had_been_that_long_from_the_start(tmp_path: Path) -> None:
    tiny_run(tmp_path / "prolonged", steps=4)
    shorter = weights(finished(tmp_path / "prolonged"))
    longer = tiny_run(tmp_path / "prolonged", steps=5)
    changed = {name for name, p in weights(longer).items() if not torch.equal(p, shorter[name])}
    # The vision tower is frozen; of the rest, nothing stands still.
    assert changed == {name for name in shorter if "vision_tower" not in name}
    assert same(longer, tiny_run(tmp_path / "long", steps=5))
    curve = json.loads((longer / "state.json").read_text())["curve"]
    assert [point["step"] for point in curve] == [1, 2, 3, 4, 5]


def test_a_folder_holds_one_recipe(whole: Path) -> None:
    with pytest.raises(InputError, match="another recipe"):
        tiny_run(whole, seed=1)


def test_an_unfinished_run_has_no_result(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no finished run"):
        finished(tmp_path)


def test_no_layer_is_a_copy_of_another(whole: Path) -> None:
    trained = weights(finished(whole))
    first, second = (
        torch.cat(
            [
                p.flatten()
                for name, p in trained.items()
                if f"language_model.layers.{i}." in name and p.ndim == 2
            ]
        )
        for i in range(2)
    )
    assert torch.nn.functional.cosine_similarity(first, second, dim=0) < 0.5


def test_the_processor_that_ships_is_the_one_that_is_built(embedded_processor: LlavaProcessor) -> None:
    built = build.build_processor()
    for found in ("tokenizer", "image_processor", "chat_template"):
        ours, theirs = (written(getattr(p, found)) for p in (built, embedded_processor))
        assert ours and ours == theirs, found


def written(part: Any) -> Any:
    if hasattr(part, "backend_tokenizer"):
        return (
            part.backend_tokenizer.to_str(),
            part.padding_side,
            part.model_max_length,
            part.special_tokens_map,
        )
    return part.to_dict() if hasattr(part, "to_dict") else part


def test_a_batch_depends_on_seed_step_and_mix_alone() -> None:
    batches = Batches(build.build_processor(), build.wording, seed=0, size=2, context=128)
    first, again = batches.draw(5, EARLY), batches.draw(5, EARLY)
    assert torch.equal(first.input_ids, again.input_ids)
    assert torch.equal(first.pixel_values, again.pixel_values)
    for other in (batches.draw(6, EARLY), batches.draw(5, LATE)):
        assert not torch.equal(first.input_ids, other.input_ids)


def test_answers_and_their_ends_alone_are_learned() -> None:
    processor = build.build_processor()
    batch = Batches(processor, build.wording, seed=0, size=2, context=128).draw(0, LATE)
    for ids, labels in zip(batch.input_ids, batch.labels, strict=True):
        learned = labels != IGNORE
        assert torch.equal(ids[learned], labels[learned])
        text = processor.tokenizer.decode(ids[learned])
        ends = int((ids == processor.tokenizer.eos_token_id).sum())
        assert ends >= 2 and text.count(build.END) == ends
        assert "ASSISTANT" not in text and "?" not in text and text.endswith(build.END)


def test_rates_rise_stay_and_fall() -> None:
    schedule = Schedule(steps=100, warmup=10, decay=20)
    rates = [schedule(step) for step in range(100)]
    assert rates[0] == 0.1 and rates[9] == 1.0 and set(rates[9:81]) == {1.0}
    assert rates[-1] == pytest.approx(0.05) and rates[80:] == sorted(rates[80:], reverse=True)


@pytest.mark.parametrize("shape", [(3, 8, 20), (3, 20, 8), (2, 8, 8)])
def test_orthogonal_matrices_have_singular_values_near_one(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonal(matrices))
    # Newton-Schulz as Muon uses it is coarse on purpose.
    assert values.min() > 0.4 and values.max() < 1.3
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    assert (
        torch.nn.functional.cosine_similarity(orthogonal(matrices).flatten(1), (u @ v).flatten(1)).min() > 0.9
    )


def test_a_recipe_survives_json() -> None:
    assert Recipe.from_json(json.loads(json.dumps(asdict(TINY)))) == TINY
