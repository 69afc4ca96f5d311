"""The pretrained LVLM in miniature: both trained parts go in unchanged, and its folder is like any other."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from families.tiny import tokenizer
from safetensors.torch import load_file
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from lmms_topoprune.errors import InputError
from training.english import English, forgetting
from training.evaluate import generate, items
from training.loop import finished
from training.lvlm import build
from training.lvlm.adapter import FILE, Adapter
from training.lvlm.release import RELEASED, make, release
from training.lvlm.train import Recipe, train

Make = Callable[..., LlavaForConditionalGeneration]
TINY = Recipe(align=5, early=1, warmup=1, batch=1, context=400)


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model with SmolLM2's special tokens, a token a byte."""
    folder = tmp_path_factory.mktemp("language")
    words = tokenizer(build.PAD, "<|im_start|>", build.END)
    words.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def vision(
    tiny_llava: Make, embedded_processor: LlavaProcessor, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("vision")
    tiny_llava(layers=1).save_pretrained(folder)
    embedded_processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def english(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("english")
    (folder / "policy.json").write_text(json.dumps(["A package has a maintainer.", "It has a version."] * 20))
    return folder


def test_both_parts_are_in_it_unchanged(language: Path, vision: Path) -> None:
    processor = build.build_processor(language, vision)
    model = build.build_model(processor, language, vision, seed=0)
    decoder = LlamaForCausalLM.from_pretrained(language)
    ids = processor.tokenizer("What is this?", return_tensors="pt")["input_ids"]
    words = decoder.config.vocab_size
    with torch.no_grad():
        assert torch.allclose(model(input_ids=ids).logits[..., :words], decoder(ids).logits, atol=1e-5)
    tower = AutoModelForImageTextToText.from_pretrained(vision).model.vision_tower.state_dict()
    assert all(torch.equal(p, tower[name]) for name, p in model.model.vision_tower.state_dict().items())
    assert model.lm_head.weight is model.get_input_embeddings().weight


def test_it_is_trained_on_what_its_template_writes(language: Path, vision: Path) -> None:
    processor = build.build_processor(language, vision)
    chat = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Red?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "yes"}]},
        {"role": "user", "content": "And blue?"},
    ]
    written = processor.apply_chat_template(chat, add_generation_prompt=True)
    first, answer = build.wording("Red?", "yes", True)
    assert written == first + answer + build.wording("And blue?", "", False)[0]
    assert written.count(processor.image_token) == 1


def test_what_was_released_fits_smollm2() -> None:
    """Its 30 layers have seven linear maps each; every update is of the recipe's rank, and finite."""
    recipe = Recipe(**json.loads((RELEASED / "recipe.json").read_text()))
    tensors = load_file(RELEASED / FILE)
    ends = {name: tensor for name, tensor in tensors.items() if name.startswith("layers.")}
    assert len(ends) == 30 * 7 * 2 and len(tensors) - len(ends) == 4  # the projector's
    assert {min(tensor.shape) for tensor in ends.values()} == {recipe.rank}
    assert all(tensor.isfinite().all() and tensor.any() for tensor in tensors.values())
    assert ends["layers.29.mlp.down_proj.lora_B"].shape == (576, recipe.rank)


def test_another_models_release_is_refused(language: Path, vision: Path, tmp_path: Path) -> None:
    parts = {"language": language, "vision": vision}
    with pytest.raises(InputError, match="holds the updates of another model"):
        make(RELEASED, tmp_path / "model", **parts)
    with pytest.raises(InputError, match="holds no release"):
        make(tmp_path, tmp_path / "model", **parts)
    assert not (tmp_path / "model").exists()


def test_english_rows_follow_from_seed_and_step(language: Path, vision: Path, english: Path) -> None:
    words = build.build_processor(language, vision).tokenizer
    rows = English(english, words, seed=3, size=2, context=8)
    assert rows.draw(5).shape == (2, 8)
    assert torch.equal(rows.draw(5), English(english, words, seed=3, size=2, context=8).draw(5))
    assert not torch.equal(rows.draw(5), rows.draw(6))
    with pytest.raises(InputError, match="tokens of English; needed: 10000"):
        English(english, words, seed=3, size=2, context=10000)


def test_nothing_is_forgotten_before_training_and_something_after(
    language: Path, vision: Path, english: Path
) -> None:
    processor = build.build_processor(language, vision)
    model = build.build_model(processor, language, vision, seed=0)
    adapter = Adapter(model, 2, 0)
    ids = English(english, processor.tokenizer, seed=0, size=2, context=8).draw(0)
    assert forgetting(model, ids, adapter.updates.switch).item() == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        for name, parameter in adapter.parameters().items():
            if name.endswith("lora_B"):
                parameter.normal_()
    lost = forgetting(model, ids, adapter.updates.switch)
    lost.backward()
    assert lost > 0.01 and all(
        p.grad is not None for n, p in adapter.parameters().items() if n.startswith("layers")
    )


def test_a_recipe_with_english_rows_needs_texts(language: Path, vision: Path, tmp_path: Path) -> None:
    given = {"language": language, "vision": vision, "steps": 3, "decay": 1}
    with pytest.raises(InputError, match="--texts"):
        train(TINY, tmp_path / "run", texts=None, say=lambda _: None, **given)
    with pytest.raises(InputError, match="--updates"):
        train(replace(TINY, goes_on=True), tmp_path / "run", texts=None, say=lambda _: None, **given)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_goes_on_and_leaves_a_plain_folder(
    language: Path, vision: Path, english: Path, tmp_path: Path
) -> None:
    class Killed(BaseException):
        pass

    def die(line: str) -> None:
        if line.startswith("{") and json.loads(line)["step"] == 1:
            raise Killed

    given = {"language": language, "vision": vision, "steps": 3, "decay": 1, "every": 1, "per_cell": 1}
    given["texts"] = english
    train(TINY, tmp_path / "whole", say=lambda _: None, **given)
    with pytest.raises(Killed):
        train(TINY, tmp_path / "killed", say=die, **given)
    trained = train(TINY, tmp_path / "killed", say=lambda _: None, **given)
    whole, killed = (finished(tmp_path / name) / "model.safetensors" for name in ("whole", "killed"))
    assert whole.read_bytes() == killed.read_bytes()

    parts = {"language": language, "vision": vision}
    figures = release(tmp_path / "whole", tmp_path / "updates", per_cell=1, **parts)
    make(tmp_path / "updates", tmp_path / "model", **parts)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "model", dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(tmp_path / "model")
    asked = [next(items(cell, 1, "test", 2)) for cell in ("open:color", "choice:count")]
    assert len(generate(model, processor, asked)) == 2
    ids = processor.tokenizer("What is this?", return_tensors="pt")["input_ids"]
    start = build.build_model(processor, language, vision, TINY.seed).eval()
    with torch.no_grad():
        made, wanted, untrained = (m(input_ids=ids).logits for m in (model, trained.eval(), start))
    assert torch.allclose(made, wanted, atol=0.01) and not torch.allclose(untrained, wanted, atol=0.01)
    card = (tmp_path / "model" / "README.md").read_text()
    assert "trained for 3 steps" in card and all(f"| {kind} |" in card for kind in ("hop", "compare"))
    assert 0 <= figures["overall"] <= 1

    further = replace(
        TINY, goes_on=True, decoder_lr=0.0, projector_lr=0.0
    )  # so that it stays where it starts
    train(further, tmp_path / "further", say=lambda _: None, updates=tmp_path / "updates", **given)
    release(tmp_path / "further", tmp_path / "again", per_cell=1, **parts)
    first, second = (load_file(tmp_path / name / FILE) for name in ("updates", "again"))
    assert first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)
    assert "--updates EARLIER" in (tmp_path / "again" / "README.md").read_text()
