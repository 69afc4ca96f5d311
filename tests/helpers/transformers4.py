"""What an engine built on transformers 4 does, in a process of its own: `make` a LLaVA or `read` a folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import transformers


def make(folder: str, tokenizer: str, template: str) -> None:
    """A LLaVA with Qwen2 (rope_theta 1e6, no class's default) and its processor, as 4.57 saves it."""
    text = transformers.PreTrainedTokenizerFast(
        tokenizer_file=tokenizer, eos_token="</s>", pad_token="<pad>", padding_side="left"
    )
    text.image_token, text.image_token_id = "<image>", 2
    processor = transformers.LlavaProcessor(
        transformers.CLIPImageProcessor(crop_size=64, size=64, do_center_crop=False),
        text,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=Path(template).read_text(),
    )
    small = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4}
    config = transformers.LlavaConfig(
        text_config=transformers.Qwen2Config(
            vocab_size=491, num_hidden_layers=6, num_key_value_heads=2, rope_theta=1e6, **small
        ),
        vision_config=transformers.CLIPVisionConfig(
            num_hidden_layers=1, image_size=64, patch_size=16, projection_dim=32, **small
        ),
        image_token_index=2,
        vision_feature_layer=-1,
        image_seq_length=16,
    )
    torch.manual_seed(0)
    transformers.LlavaForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)


def read(folder: str) -> None:
    """Print what became of the folder as one line of JSON."""
    model, report = transformers.AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    processor = transformers.AutoProcessor.from_pretrained(folder)
    ids = torch.arange(3, 12)[None]
    told = {
        "version": transformers.__version__,
        "layers": len(model.model.language_model.layers),
        "rope_theta": model.config.text_config.rope_theta,
        "wrong": {key: list(map(str, keys)) for key, keys in report.items() if keys},
        "processor": type(processor).__name__,
        "ids": processor(text="How many?", return_tensors="pt").input_ids.tolist(),
        "logits": model(input_ids=ids).logits[0, -1].tolist(),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    {"make": make, "read": read}[sys.argv[1]](*sys.argv[2:])
