"""Repair of the weights around a cut: against independent solutions, in every detail that could go wrong."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from families import properties as holds
from families.table import FAMILIES, text
from torch import nn

from lmms_topoprune.calibration.decoder import Decoder
from lmms_topoprune.errors import OptionError, SurgeryError
from lmms_topoprune.repair import linear as repairing
from lmms_topoprune.repair import weights as formulas
from lmms_topoprune.repair.cut_sums import CutRecorder
from lmms_topoprune.repair.probes import BatchPasses
from lmms_topoprune.repair.repaired_deletion import repair
from lmms_topoprune.repair.weights import Projection
from lmms_topoprune.surgery import decoder_layers, delete_layers, fingerprint, identity_layers
from lmms_topoprune.surgery.edits import repair_of

WIDTH, VOCABULARY = 32, 100


def llama(seed: int = 0, **given: Any) -> hf.PreTrainedModel:
    torch.manual_seed(seed)
    return hf.LlamaForCausalLM(text("LlamaConfig", **given)).eval()


def batch(rows: int, length: int, seed: int) -> dict[str, torch.Tensor]:
    ids = torch.randint(3, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


BATCHES = [batch(8, 12, 1), batch(4, 17, 2), batch(6, 9, 3)]


@torch.no_grad()
def logits(model: hf.PreTrainedModel, inputs: dict[str, torch.Tensor] = BATCHES[0]) -> torch.Tensor:
    return model(**inputs, use_cache=False).logits


def make_linear(model: hf.PreTrainedModel, layer: int, seed: int = 0, factor: float = 1.0) -> None:
    """The layer adds a fixed linear map of what the projection before it, times a factor, added."""
    layers, added = decoder_layers(model), {}
    mapping = 0.3 * torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(seed))
    layers[layer - 1].mlp.down_proj.register_forward_hook(lambda _, args, out: added.update(value=out))
    layers[layer].forward = lambda hidden_states, **_: hidden_states + factor * added["value"] @ mapping


def test_a_block_that_is_linear_is_repaired_exactly() -> None:
    model = llama()
    make_linear(model, 2)
    make_linear(model, 4, seed=1)
    dense = logits(model)
    with identity_layers(model, [2, 4]):
        assert (logits(model) - dense).abs().max() > 1e-3
    with repair(model, BATCHES, [2, 4], ridge=1e-12):
        assert len(decoder_layers(model)) == 4
        torch.testing.assert_close(logits(model), dense, atol=1e-5, rtol=1e-4)
    assert torch.equal(logits(model), dense)


def test_what_a_layer_multiplies_its_output_with_counts() -> None:
    """Granite adds a fraction of what its projections give."""
    torch.manual_seed(0)
    model = hf.GraniteForCausalLM(text("GraniteConfig", residual_multiplier=0.22)).eval()
    make_linear(model, 2, factor=0.22)
    dense = logits(model)
    with repair(model, BATCHES, [2], ridge=1e-12):
        torch.testing.assert_close(logits(model), dense, atol=1e-5, rtol=1e-4)


def transposed(gram: torch.Tensor, cross: torch.Tensor, ridge: float) -> torch.Tensor:
    return formulas.linear_map(gram, cross, ridge).T


def target_alone(gram: torch.Tensor, cross: torch.Tensor, ridge: float) -> torch.Tensor:
    return formulas.linear_map(gram, cross - gram, ridge)


@pytest.mark.parametrize("broken", [transposed, target_alone])
def test_a_broken_solution_shows(
    broken: Callable[..., torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = llama()
    make_linear(model, 2)
    dense = logits(model)
    monkeypatch.setattr(repairing, "linear_map", broken)
    with repair(model, BATCHES, [2], ridge=1e-12):
        assert (logits(model) - dense).abs().max() > 1e-3


class Stored:
    """What numpy needs of a model: a projection's output, its layer's output and every layer's output."""

    def __init__(self, model: hf.PreTrainedModel, layer: int) -> None:
        self.added: list[np.ndarray] = []
        self.states: list[list[np.ndarray]] = []
        layers = decoder_layers(model)
        hooks = [layers[layer].mlp.down_proj.register_forward_hook(self._add)]
        for inputs in BATCHES:
            self.keep = inputs["attention_mask"].bool()
            rows: list[np.ndarray] = []
            each = [
                x.register_forward_hook(lambda _, a, out, rows=rows: rows.append(self._real(out)))
                for x in layers
            ]
            logits(model, inputs)
            self.states.append(rows)
            for hook in each:
                hook.remove()
        for hook in hooks:
            hook.remove()

    def _real(self, value: torch.Tensor) -> np.ndarray:
        return value[self.keep].double().numpy()

    def _add(self, _: nn.Module, args: Any, output: torch.Tensor) -> None:
        self.added.append(self._real(output))

    def state(self, layer: int) -> np.ndarray:
        return np.concatenate([rows[layer] for rows in self.states])


def independent_map(added: np.ndarray, before: np.ndarray, after: np.ndarray, ridge: float) -> np.ndarray:
    """The ridge regression as an ordinary one with more rows."""
    weight = np.sqrt(ridge * (added**2).sum() / WIDTH) * np.eye(WIDTH)
    rows = np.vstack([added, weight]), np.vstack([after - before, np.zeros((WIDTH, WIDTH))])
    return np.eye(WIDTH) + np.linalg.lstsq(*rows, rcond=None)[0]


def test_least_squares_over_stored_tokens_gives_the_same_weights() -> None:
    model = llama()
    for layer in decoder_layers(model):
        layer.mlp.down_proj.weight.data *= 20  # every layer matters
    for block, ridge in ((range(2, 3), 0.05), (range(4, 6), 0.0)):
        stored = Stored(model, block.start - 1)
        before, after = stored.state(block.start - 1), stored.state(block.stop - 1)
        found = independent_map(np.concatenate(stored.added), before, after, ridge)
        projection = decoder_layers(model)[block.start - 1].mlp.down_proj
        old = projection.weight.detach().double().numpy()
        with repair(model, BATCHES, {2, *block}, ridge=ridge):
            new = projection.weight.detach().double().numpy()
            missed = repair_of(model)["cuts"]
        np.testing.assert_allclose(new, found.T @ old, atol=1e-5)
        assert np.abs(new - old).max() > 1e-2
        change = after - before
        left = np.square(np.concatenate(stored.added) @ (found - np.eye(WIDTH)) - change).sum()
        share = missed[str(block.start) if len(block) == 1 else f"{block.start}-{block.stop - 1}"]
        assert abs(share - left / np.square(change).sum()) < 1e-3


def test_sums_of_shares_are_the_sums_of_all() -> None:
    """What several processes found on their samples adds up, and batches may be of any size."""
    model = llama()
    decoder = Decoder.of(model, decoder_layers(model))
    found = []
    for share in (BATCHES, BATCHES[:1], BATCHES[1:]):
        block, projection = range(2, 4), Projection(decoder.layers[1].mlp.down_proj, 1)
        recorder = CutRecorder(decoder, [block], {block: projection})
        BatchPasses(model, share).run(recorder)
        found.append(recorder.totals[block])
    together = found[1] + found[2]
    for name, value in vars(found[0]).items():
        torch.testing.assert_close(getattr(together, name), value)


def padded(side: str) -> list[dict[str, torch.Tensor]]:
    """The same six prompts, one of them short, padded on one side with a token that means something."""
    found = []
    for inputs in BATCHES:
        ids, mask = inputs["input_ids"].clone(), inputs["attention_mask"].clone()
        short = ids.shape[1] - 5
        row, ones = ids[0, :short].clone(), torch.ones(short, dtype=torch.long)
        place = slice(0, short) if side == "right" else slice(5, None)
        ids[0], mask[0] = 7, 0
        ids[0, place], mask[0, place] = row, ones
        found.append({"input_ids": ids, "attention_mask": mask})
    return found


@pytest.mark.parametrize("method", ["linear", "rescale"])
def test_padding_never_enters(method: str) -> None:
    weights = {}
    for side in ("left", "right"):
        model = llama()
        with repair(model, padded(side), [2, 3], method):
            weights[side] = model.state_dict()
    for name, value in weights["left"].items():
        torch.testing.assert_close(value, weights["right"][name], atol=2e-6, rtol=1e-5)
    model = llama()
    unmasked = [{"input_ids": inputs["input_ids"]} for inputs in padded("right")]
    with repair(model, unmasked, [2, 3], method):
        changed = [
            n for n, v in model.state_dict().items() if not torch.allclose(v, weights["right"][n], atol=1e-5)
        ]
    assert changed  # padding that is taken for text does


@pytest.mark.parametrize("method", ["linear", "rescale"])
@pytest.mark.parametrize("layers", [[1], [2, 3, 5]])
def test_a_restore_is_bit_equal_and_keeps_the_parameters(method: str, layers: list[int]) -> None:
    model = llama()
    dense, name, before = logits(model), fingerprint(model), dict(model.named_parameters())
    deletion = repair(model, BATCHES, layers, method)
    assert repair_of(model)["cuts"]
    repaired = fingerprint(model)
    deletion.restore()
    assert torch.equal(logits(model), dense)
    assert fingerprint(model) == name != repaired
    assert all(parameter is before[key] for key, parameter in model.named_parameters())
    assert repair_of(model) == {}


@pytest.mark.parametrize("method", ["linear", "rescale"])
def test_a_repair_is_the_same_each_time_and_none_is_none(method: str) -> None:
    seen = []
    for _ in range(2):
        model = llama()
        repair(model, BATCHES, [2, 4], method)
        seen.append(fingerprint(model))
    model = llama()
    repair(model, BATCHES, [2, 4], "none")
    assert seen[0] == seen[1] != fingerprint(model)


@pytest.mark.parametrize("tied", [False, True])
def test_rescaling_behind_the_cut_is_the_papers_rescaling_before_it(tied: bool) -> None:
    """Prune&Comp lengthens embedding, o_proj and down_proj before the cut; norms see no difference."""
    model = llama(tie_word_embeddings=tied, rms_norm_eps=1e-12)
    paper = copy.deepcopy(model)
    with repair(model, BATCHES, [3, 4], "rescale"):
        factor = repair_of(model)["cuts"]["3-4"]
        ours = logits(model)
    assert abs(factor - independent_factor(paper, 2, 4)) < 1e-5
    head = paper.lm_head.weight.detach().clone()
    with torch.no_grad():
        paper.model.embed_tokens.weight.mul_(factor)
        paper.lm_head.weight = nn.Parameter(head)
        for layer in decoder_layers(paper)[:3]:
            layer.self_attn.o_proj.weight.mul_(factor)
            layer.mlp.down_proj.weight.mul_(factor)
    with identity_layers(paper, [3, 4]):
        torch.testing.assert_close(ours, logits(paper), atol=1e-5, rtol=1e-4)
    assert abs(factor - 1) > 1e-3


def independent_factor(model: hf.PreTrainedModel, before: int, after: int) -> float:
    stored = Stored(model, 0)
    return float(np.mean(np.abs(stored.state(after)).sum(0) / np.abs(stored.state(before)).sum(0)))


def test_a_cut_at_the_end_needs_no_rescaling() -> None:
    model = llama()
    before = model.state_dict()
    with repair(model, BATCHES, [4, 5], "rescale"):
        after = model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in after)


def test_a_later_deletion_is_restored_first() -> None:
    model = llama()
    first = repair(model, BATCHES, [2])
    second = repair(model, BATCHES, [1])
    with pytest.raises(SurgeryError, match="restore the later deletion first"):
        first.restore()
    second.restore()
    first.restore()
    assert len(decoder_layers(model)) == 6


@pytest.mark.parametrize(
    ("name", "layers", "method", "reason"),
    [
        ("llama", [0, 3], "linear", "layer 0 is deleted, and no layer before it could take it up"),
        (
            "paligemma2",
            [2],
            "linear",
            "layer 1 cannot take it up: what its last linear map gives is not added",
        ),
        ("paligemma2", [2], "rescale", "its logits depend on the length of the hidden states"),
        ("qwen3_vl_moe", [2], "linear", "layer 1 cannot take it up"),
        ("llama4", [2, 4], "rescale", "its logits depend on the length of the hidden states"),
    ],
)
def test_what_cannot_be_repaired_is_refused_in_one_sentence(
    name: str, layers: list[int], method: str, reason: str
) -> None:
    model = holds.build(FAMILIES[name], "eager")
    before = fingerprint(model)
    with pytest.raises(SurgeryError, match=reason) as error:
        repair(model, BATCHES, layers, method)
    assert "\n" not in str(error.value)
    assert fingerprint(model) == before


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(OptionError, match="repair is 'magic'; allowed: linear, none, rescale"):
        repair(llama(), BATCHES, [2], "magic")
    with pytest.raises(OptionError, match="ridge is -1"):
        repair(llama(), BATCHES, [2], ridge=-1)


NAMES = ("qwen2", "qwen3", "gpt_neox", "llava_mistral", "idefics3", "mllama", "lfm2_vl", "fuyu")


@pytest.mark.parametrize("method", ["linear", "rescale"])
@pytest.mark.parametrize("name", holds.named(NAMES))
def test_families_stay_whole(name: str, method: str) -> None:
    """Caches agree with no cache, plain prompts give finite logits, and a restore gives the dense ones."""
    family = FAMILIES[name]
    model = holds.build(family, "eager")
    inputs = holds.prompts(model, family.inputs)
    dense = holds.logits(model, inputs[0][0])
    batches = [inputs[1]]
    with repair(model, batches, [2, 4], method) as deletion:
        assert deletion.dropped == (2, 4)
        holds.cache_agrees(model, family.inputs)
        changed = holds.logits(model, inputs[0][0])
    with delete_layers(model, [2, 4]):
        assert not torch.equal(changed, holds.logits(model, inputs[0][0]))
    assert torch.equal(holds.logits(model, inputs[0][0]), dense)
