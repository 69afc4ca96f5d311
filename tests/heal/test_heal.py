"""A pruned model trained on the dense model's answers: nearer to it after, one copy of weights, undoable."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import LlavaProcessor, PreTrainedModel

from lmms_topoprune.calibration.loss import answered_texts
from lmms_topoprune.calibration.prompts import Prompter
from lmms_topoprune.calibration.samples import Sample
from lmms_topoprune.errors import InputError, OptionError, SurgeryError
from lmms_topoprune.heal.distillation import Outcome, Seams, dense_again, loss_of
from lmms_topoprune.heal.healing import check_samples, check_weights, heal, split
from lmms_topoprune.heal.overlay import FullOverlay, LoraOverlay, check_linear_maps
from lmms_topoprune.heal.training import Checkpoint, Progress, Training
from lmms_topoprune.heal_options import HealingOptions
from lmms_topoprune.surgery import decoder_layers, delete_layers, fingerprint

IDS = {"input_ids": torch.arange(3, 12)[None]}
SHORT = HealingOptions(steps=8, batch=8, check_every=4, rank=4, learning_rate=1e-2, patience=0)
FEW = replace(SHORT, steps=4, check_every=2)

Make = Callable[..., PreTrainedModel]


@torch.no_grad()
def logits(model: PreTrainedModel) -> torch.Tensor:
    return model(**IDS).logits


@pytest.fixture
def loud(tiny_llava: Make) -> PreTrainedModel:
    """A tiny random model in which every layer matters."""
    model = tiny_llava(layers=4)
    for layer in decoder_layers(model):
        layer.mlp.down_proj.weight.data *= 20
    return model


@pytest.mark.parametrize("method", ["lora", "full"])
def test_healed_is_nearer_to_dense_and_undone_bit_for_bit(
    method: str, loud: PreTrainedModel, embedded_processor: LlavaProcessor, samples: Sequence[Sample]
) -> None:
    dense, before = logits(loud), fingerprint(loud)
    wanted = {name: p.requires_grad for name, p in loud.named_parameters()}
    deletion = delete_layers(loud, {1, 2})
    pruned = logits(loud)
    rate = 1e-2 if method == "lora" else 2e-3
    options = replace(SHORT, method=method, learning_rate=rate)
    record = heal(deletion, embedded_processor, samples, options)
    assert record["steps"] == 8 and record["tokens"] > 0
    assert record["loss_after"] < 0.9 * record["loss_before"]
    assert not torch.equal(logits(loud), pruned)
    assert {name for name, _ in loud.named_parameters()} < set(wanted)  # plain names, fewer layers
    deletion.restore()
    assert torch.equal(logits(loud), dense) and fingerprint(loud) == before
    assert {name: p.requires_grad for name, p in loud.named_parameters()} == wanted


@pytest.mark.parametrize("method", [LoraOverlay, FullOverlay])
def test_the_teacher_is_the_dense_model_whatever_was_trained(
    method: type, loud: PreTrainedModel, embedded_processor: LlavaProcessor
) -> None:
    dense = logits(loud)
    deletion = delete_layers(loud, {1})
    pruned = logits(loud)
    layers = decoder_layers(loud)
    overlay = method(layers) if method is FullOverlay else method(layers, 4, 0)
    with torch.no_grad():
        for parameter in overlay.parameters().values():
            parameter += 0.1
    trained = logits(loud)
    assert not torch.allclose(trained, pruned, atol=1e-3)
    with dense_again(deletion, overlay):
        assert torch.equal(logits(loud), dense)
    assert torch.equal(logits(loud), trained)
    weights = overlay.finish()
    assert torch.equal(logits(loud), pruned)
    deletion.attach(weights, "_note", {})
    torch.testing.assert_close(logits(loud), trained, atol=1e-4, rtol=1e-4)
    deletion.restore()
    assert torch.equal(logits(loud), dense)


class Stop(Exception):
    pass


def test_an_interrupted_healing_ends_in_the_same_weights(
    loud: PreTrainedModel, embedded_processor: LlavaProcessor, samples: Sequence[Sample], tmp_path: Path
) -> None:
    with delete_layers(loud, {1, 2}) as deletion:
        whole = heal(deletion, embedded_processor, samples[:16], FEW)
        expected = logits(loud)

    def stop(step: int, loss: float, tokens: int) -> None:
        if step == 3:
            raise Stop

    with delete_layers(loud, {1, 2}) as deletion:
        with pytest.raises(Stop):
            heal(deletion, embedded_processor, samples[:16], FEW, checkpoint=tmp_path / "run", tell=stop)
        told: list[int] = []
        again = heal(
            deletion, embedded_processor, samples[:16], FEW, checkpoint=tmp_path / "run",
            tell=lambda step, *_: told.append(step),
        )  # fmt: skip
        assert told[0] == 3  # that one came after the last checkpoint
        assert torch.equal(logits(loud), expected) and {**again, "seconds": 0} == {**whole, "seconds": 0}


def test_a_checkpoint_of_other_options_is_not_used(
    loud: PreTrainedModel, embedded_processor: LlavaProcessor, samples: Sequence[Sample], tmp_path: Path
) -> None:
    def stop(step: int, loss: float, tokens: int) -> None:
        if step == 3:
            raise Stop

    with delete_layers(loud, {1}) as deletion:
        with pytest.raises(Stop):
            heal(deletion, embedded_processor, samples[:16], FEW, checkpoint=tmp_path, tell=stop)
        other = replace(FEW, steps=2)
        told: list[int] = []
        heal(
            deletion, embedded_processor, samples[:16], other, checkpoint=tmp_path,
            tell=lambda step, *_: told.append(step),
        )  # fmt: skip
        assert told == [1, 2]


def test_recomputed_activations_give_the_same_weights(
    loud: PreTrainedModel, embedded_processor: LlavaProcessor, samples: Sequence[Sample]
) -> None:
    found = []
    for checkpointing in (False, True):
        options = replace(FEW, steps=2, checkpointing=checkpointing)
        with delete_layers(loud, {1, 2}) as deletion:
            heal(deletion, embedded_processor, samples[:16], options)
            found.append(logits(loud))
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-4)
    assert not loud.training and not loud.is_gradient_checkpointing


def test_the_loss_is_zero_between_equals_and_counts_what_it_says() -> None:
    generator = torch.Generator().manual_seed(0)
    one = Outcome(torch.randn(5, 7, generator=generator), {0: torch.randn(6, 4, generator=generator)})
    other = Outcome(torch.randn(5, 7, generator=generator), {0: 2 * one.seams[0]})
    same = loss_of(one, one)
    assert float(same.divergence) == pytest.approx(0, abs=1e-6) and float(same.seam) == 0
    loss = loss_of(other, one)
    p, q = one.logits.softmax(-1), other.logits.softmax(-1)
    assert float(loss.divergence) == pytest.approx(float((p * (p / q).log()).sum()), rel=1e-5)
    assert float(loss.seam) == pytest.approx(6) and loss.seam_tokens == 6  # |2x - x|^2 / |x|^2 = 1 a token
    assert float(loss.mean(0.5)) == pytest.approx(float(loss.divergence) / 5 + 0.5)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_half_precision_is_healed_and_stays(
    method: str, tiny_llava: Make, embedded_processor: LlavaProcessor, samples: Sequence[Sample]
) -> None:
    model = tiny_llava(layers=4).bfloat16()
    with delete_layers(model, {1, 2}) as deletion:
        found = heal(deletion, embedded_processor, samples[:16], replace(FEW, steps=1, method=method))
        assert 0 <= found["loss_after"] <= found["loss_before"]
        assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_layers_that_peft_cannot_update_are_refused() -> None:
    """Weights are not looked at, so this is asked before any is loaded."""
    with torch.device("meta"):
        check_linear_maps(nn.ModuleList([nn.Sequential(nn.Linear(4, 4))]))
        with pytest.raises(SurgeryError, match="LayerNorm has no linear map that peft can update"):
            check_linear_maps(nn.ModuleList([nn.LayerNorm(4)]))


def test_seams_lie_behind_every_cut(tiny_llava: Make) -> None:
    model = tiny_llava(layers=6)
    dense = list(decoder_layers(model))
    with delete_layers(model, {1, 2, 4}) as deletion:
        assert Seams.of(deletion).modules == [dense[3], dense[5]]
    with delete_layers(model, {2, 5}) as deletion:
        assert Seams.of(deletion).modules == [dense[3], model.model.language_model.norm]


def test_the_held_out_share_is_never_trained_on(
    loud: PreTrainedModel, embedded_processor: LlavaProcessor, samples: Sequence[Sample]
) -> None:
    train, held_out = split(samples, SHORT, 0)
    digests = [{sample.digest for sample in part} for part in (train, held_out)]
    assert not digests[0] & digests[1] and len(train) + len(held_out) == len(samples)
    texts = answered_texts(loud, Prompter(embedded_processor), held_out, 8)
    assert sum(len(text.labels) for text in texts) == round(SHORT.held_out * len(samples))


@pytest.mark.parametrize(
    ("losses", "steps", "kept"), [((1.0, 1.1, 1.2, 1.3), 2, 0), ((1.0, 0.9, 0.8, 0.85, 0.95, 0.7), 4, 2)]
)
def test_training_stops_when_the_held_out_share_gains_nothing(
    losses: Sequence[float],
    steps: int,
    kept: int,
    loud: PreTrainedModel,
    embedded_processor: LlavaProcessor,
    samples: Sequence[Sample],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = iter(losses)
    monkeypatch.setattr(Training, "_held_out_loss", lambda self: next(seen))
    options = HealingOptions(steps=50, check_every=1, patience=2, batch=8, rank=2)
    with delete_layers(loud, {1}) as deletion:
        pruned = logits(loud)
        record = heal(deletion, embedded_processor, samples, options)
        assert (record["steps"], record["kept"]) == (steps, kept)
        assert (record["loss_before"], record["loss_after"]) == (losses[0], losses[kept])
        assert torch.equal(logits(loud), pruned) == (kept == 0)
        assert ("healing gained nothing" in caplog.text) == (kept == 0)


def test_a_checkpoint_of_the_version_before_is_gone_on_from(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, "key")
    checkpoint.save(Progress(step=3, held_out=[1.0]), {"a": torch.ones(1)}, {}, {})
    state = json.loads((tmp_path / "state.json").read_text())
    state["progress"]["trained"] = [0.5]
    (tmp_path / "state.json").write_text(json.dumps(state))
    found = checkpoint.load()
    assert found is not None and found[0] == Progress(step=3, held_out=[1.0])


@pytest.mark.parametrize("batch", [1, 8, 100])
def test_as_many_samples_as_are_said_to_be_allowed_are_enough(batch: int) -> None:
    with pytest.raises(InputError) as found:
        check_samples(3, HealingOptions(batch=batch))
    least = int(str(found.value).rpartition(" ")[2])
    check_samples(least, HealingOptions(batch=batch))
    with pytest.raises(InputError, match=f"at least {least}$"):
        check_samples(least - 1, HealingOptions(batch=batch))


def test_somebody_elses_folder_holds_no_checkpoint(tmp_path: Path) -> None:
    own, other = Checkpoint(tmp_path / "own", "key"), Checkpoint(tmp_path / "other", "key")
    for checkpoint in (own, other):
        checkpoint.check()
        checkpoint.save(Progress(step=3), {"a": torch.ones(1)}, {}, {})
    other.folder.joinpath("model-00001-of-00002.safetensors").write_text("mine")
    own.check()
    with pytest.raises(InputError, match=r"holds .model-00001-of-00002\.safetensors."):
        other.check()
    other.save(Progress(step=5), {"a": torch.ones(1)}, {}, {})
    for checkpoint in (own, other):
        checkpoint.discard()
    assert not own.folder.exists()
    assert [file.name for file in other.folder.iterdir()] == ["model-00001-of-00002.safetensors"]


def test_mistakes_are_one_sentence(
    loud: PreTrainedModel, embedded_processor: LlavaProcessor, samples: Sequence[Sample]
) -> None:
    for text, sentence in (
        ("steps=-1", "heal steps is -1; allowed: whole numbers from 1"),
        ("stepz=3", "'stepz'"),
        ("rank=x", "heal rank is 'x'; allowed: whole numbers from 1"),
        ("method=magic", "magic"),
        ("held_out=0.9", "held_out is 0.9; allowed: 0 < held_out <= 0.5"),
        ("learning_rate=7", "learning_rate is 7"),
        ("rank=5000", "heal rank is 5000; allowed: whole numbers from 1 to 1024"),
        ("steps", "allowed: none, a number of steps, or settings"),
    ):
        with pytest.raises(OptionError, match=sentence):
            HealingOptions.parse(text)
    assert HealingOptions.parse("300") == HealingOptions(steps=300)
    assert HealingOptions.parse("steps=5+rank=2+checkpointing=true").checkpointing
    assert HealingOptions.parse("steps=5+seam_weight=1e+2").seam_weight == 100
    huge = HealingOptions(seam_weight=1e20)
    assert HealingOptions.parse(huge.text) == huge
    assert HealingOptions.of_plan(HealingOptions(method="full").to_json()).learning_rate is None
    for text in ("steps=7", "steps=5+rank=2+checkpointing=True", "steps=5+method=full+learning_rate=0.001"):
        assert HealingOptions.parse(text).text == text
        assert HealingOptions.of_plan(HealingOptions.parse(text).to_json()).text == text
    with delete_layers(loud, {1}) as deletion, pytest.raises(InputError, match="3 calibration samples"):
        heal(deletion, embedded_processor, samples[:3], SHORT)
    loud.is_quantized = True
    with pytest.raises(SurgeryError, match="quantized"):
        check_weights(loud)
