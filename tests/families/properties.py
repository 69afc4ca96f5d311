"""What a correct deletion satisfies; each function raises AssertionError if the model does not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from packaging.version import Version
from transformers import PreTrainedModel
from transformers.modeling_outputs import MoeCausalLMOutputWithPast

from families.inputs import Inputs, decoder_start, prompts
from families.table import Family

TOLERANCE = 1e-4
NEW_TOKENS = 3
NEEDS_5_24 = ("fuyu", "kosmos2")
"""Before it transformers generates nothing from Fuyu's images, and nothing from Kosmos-2 without one."""


def named(names: Sequence[str]) -> list[Any]:
    """Test cases of these families; what this transformers cannot do itself is left out."""
    old = Version(hf.__version__) < Version("5.24")
    skip = pytest.mark.skipif(old, reason="transformers cannot before 5.24")
    return [pytest.param(name, marks=skip if name in NEEDS_5_24 else ()) for name in names]


def build(family: Family, attention: str) -> PreTrainedModel:
    """A random model of the family; no tensor is all zeros, so that every layer matters."""
    torch.manual_seed(0)
    # Llama4ForConditionalGeneration of transformers 5.24 reads this name from its text model's output.
    if not hasattr(MoeCausalLMOutputWithPast, "image_outputs"):
        MoeCausalLMOutputWithPast.image_outputs = None
    model = getattr(hf, family.model)._from_config(family.config(), attn_implementation=attention).eval()
    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.dim() > 1 or not tensor.any():
                tensor.normal_(std=0.1)
    model.generation_config = hf.GenerationConfig(
        do_sample=False,
        pad_token_id=0,
        eos_token_id=None,
        decoder_start_token_id=2,
        suppress_tokens=list(range(100, 128)),  # a random model may write image tokens, which need images
    )
    return model


@torch.no_grad()
def logits(model: PreTrainedModel, inputs: Inputs) -> torch.Tensor:
    """(batch, tokens, vocabulary) without a cache."""
    more = decoder_start(model, len(inputs["input_ids"]))
    return model(**inputs, **more, use_cache=False).logits


def equal(found: torch.Tensor, expected: torch.Tensor, what: str) -> None:
    assert found.isfinite().all(), f"{what}: not finite"
    distance = (found - expected).abs().max().item()
    open_ = expected > torch.finfo(torch.float16).min  # Chameleon closes image tokens with a huge negative
    scale = expected[open_].abs().max().item()
    assert distance < TOLERANCE * (1 + scale), f"{what}: {distance:.2g} apart"


def equals_identity(model: PreTrainedModel, references: Sequence[torch.Tensor], kind: str) -> None:
    """The logits of each prompt are those of the dense model with the layers replaced by the identity."""
    for inputs, reference in zip(prompts(model, kind)[0], references, strict=True):
        equal(logits(model, inputs), reference, "identity")


def sees(model: PreTrainedModel, inputs: Inputs, dense: torch.Tensor) -> None:
    """The last logits depend on the image of the prompt, if it has one."""
    other = {key: value.abs() if value.is_floating_point() else value for key, value in inputs.items()}
    if any(value.is_floating_point() for value in inputs.values()):
        distance = (logits(model, other) - dense)[:, -1].abs().max()
        assert distance > 100 * TOLERANCE, "the image changes nothing"


def differs(references: Sequence[torch.Tensor], dense: Sequence[torch.Tensor]) -> None:
    for reference, other in zip(references, dense, strict=True):
        assert (reference - other).abs().max() > 100 * TOLERANCE, "the deleted layers change nothing"


def cache_agrees(model: PreTrainedModel, kind: str) -> None:
    """Generation with and without the cache gives the same tokens and logits."""
    inputs = prompts(model, kind)[0][0]
    runs = [
        model.generate(
            **inputs,
            max_new_tokens=NEW_TOKENS,
            use_cache=cache,
            return_dict_in_generate=True,
            output_logits=True,
        )
        for cache in (True, False)
    ]
    assert torch.equal(runs[0].sequences, runs[1].sequences), "cache: other tokens"
    for with_cache, without in zip(*(run.logits for run in runs), strict=True):
        equal(with_cache, without, "cache")


def batch_agrees(model: PreTrainedModel, kind: str) -> None:
    """The last logits of every row of a left-padded batch are those of the single prompt."""
    singles, batch = prompts(model, kind)
    last = logits(model, batch)[:, -1]
    for row, inputs in enumerate(singles):
        equal(last[row], logits(model, inputs)[0, -1], "batch")


def reload_agrees(model: PreTrainedModel, kind: str, folder: Path) -> None:
    """A saved and loaded model gives the same logits; no key is missing, unexpected or of another shape."""
    model.save_pretrained(folder)
    loaded, report = type(model).from_pretrained(
        folder, output_loading_info=True, attn_implementation=model.config._attn_implementation
    )
    wrong = {key: value for key, value in report.items() if value}
    assert not wrong, f"reload: {wrong}"
    inputs = prompts(model, kind)[0][0]
    equal(logits(loaded.eval(), inputs), logits(model, inputs), "reload")
