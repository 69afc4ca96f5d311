"""A GLM-4V model is what its config.json says, whatever its folder is called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from families import qwen_line, wrapped
from families.tiny import LAYERS, text
from lmms_eval import models

pytestmark = pytest.mark.slow

MOE = {"first_k_dense_replace": 1, "n_group": 1, "topk_group": 1}


def mixture_of_experts(folder: Path) -> Path:
    """GLM-4.6V's class, in a folder whose name would make lmms-eval take the dense one."""
    dense, processor = qwen_line.glm4v()
    kind = hf.Glm4vMoeConfig
    words = processor.tokenizer
    decoder = text(type(kind().text_config), words, rope_parameters=dense.text_config.rope_parameters, **MOE)
    marks = {
        key: value for key, value in vars(dense).items() if key.endswith("_token_id") and value is not None
    }
    vision = {**dense.vision_config.to_dict(), "model_type": "glm4v_moe_vision"}
    torch.manual_seed(0)
    model = hf.Glm4vMoeForConditionalGeneration(
        kind(text_config=decoder.to_dict(), vision_config=vision, **marks)
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("make", "name", "kind"),
    [
        (lambda folder: wrapped.save("glm4v", folder), "tuned", "Glm4vForConditionalGeneration"),
        (mixture_of_experts, "tuned-Flash", "Glm4vMoeForConditionalGeneration"),
    ],
)
def test_the_class_is_that_of_the_configuration(
    make: Any, name: str, kind: str, tmp_path: Path, asked: Any
) -> None:
    folder = make(tmp_path / name)
    lm = models.get_model("topopruned_glm4v")(pretrained=str(folder), layers="3")
    assert type(lm.network).__name__ == kind
    assert lm.network.config.get_text_config().num_hidden_layers == LAYERS - 1
    few = type(asked)(asked.docs[:2])
    assert len(few.ask(lm, few.requests("simple"))) == 2
