"""Tiny random models and processors, for each family that lmms-eval wraps: one table for all tests."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers as hf

from families import other_lines, qwen_line
from families.tiny import text, tiny, tokenizer

GRID = [[28, 56], [56, 28], [56, 56]]
SIZE = {"height": 28, "width": 28}


def _words(*special: str) -> hf.PreTrainedTokenizerFast:
    return tokenizer("<image>", *special, image="<image>")


def llava() -> tuple[Any, Any]:
    words = _words()
    config = hf.LlavaConfig(
        vision_config=tiny(hf.CLIPVisionConfig),
        text_config=text(hf.LlamaConfig, words),
        image_token_id=3,
    )
    processor = hf.LlavaProcessor(
        image_processor=hf.CLIPImageProcessor(size={"shortest_edge": 28}, crop_size=SIZE),
        tokenizer=words,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=words.chat_template,
    )
    return config, processor


def llava_next() -> tuple[Any, Any]:
    words = _words()
    config = hf.LlavaNextConfig(
        vision_config=tiny(hf.CLIPVisionConfig),
        text_config=text(hf.MistralConfig, words),
        image_token_id=3,
        image_grid_pinpoints=GRID,
    )
    processor = hf.LlavaNextProcessor(
        image_processor=hf.LlavaNextImageProcessor(
            size={"shortest_edge": 28}, crop_size=SIZE, image_grid_pinpoints=GRID
        ),
        tokenizer=words,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=words.chat_template,
    )
    return config, processor


def llava_onevision() -> tuple[Any, Any]:
    words = _words("<video>")
    config = hf.LlavaOnevisionConfig(
        vision_config=tiny(hf.SiglipVisionConfig),
        text_config=text(hf.Qwen2Config, words),
        image_token_id=3,
        video_token_id=4,
        image_grid_pinpoints=GRID,
    )
    processor = hf.LlavaOnevisionProcessor(
        image_processor=hf.LlavaOnevisionImageProcessor(size=SIZE, image_grid_pinpoints=GRID),
        tokenizer=words,
        video_processor=hf.LlavaOnevisionVideoProcessor(size=SIZE),
        num_image_tokens=4,
        vision_feature_select_strategy="full",
        chat_template=words.chat_template,
    )
    return config, processor


def video_llava() -> tuple[Any, Any]:
    words = _words("<video>")
    config = hf.VideoLlavaConfig(
        vision_config=tiny(hf.CLIPVisionConfig),
        text_config=text(hf.LlamaConfig, words),
        image_token_id=3,
        video_token_id=4,
        image_seq_length=4,
        video_seq_length=40,
    )
    processor = hf.VideoLlavaProcessor(
        image_processor=hf.VideoLlavaImageProcessor(size={"shortest_edge": 28}, crop_size=SIZE),
        video_processor=hf.VideoLlavaVideoProcessor(size={"shortest_edge": 28}, crop_size=SIZE),
        tokenizer=words,
        patch_size=14,
        chat_template=words.chat_template,
    )
    return config, processor


BUILDERS: dict[str, Callable[[], tuple[Any, Any]]] = {
    made.__name__: made
    for made in (
        llava,
        llava_next,
        llava_onevision,
        video_llava,
        qwen_line.qwen2_vl,
        qwen_line.qwen2_5_vl,
        qwen_line.qwen3_vl,
        qwen_line.qwen3_5,
        qwen_line.qwen2_5_omni,
        qwen_line.glm4v,
        other_lines.internvl_hf,
        other_lines.gemma3,
        other_lines.gemma4,
        other_lines.idefics2,
        other_lines.llama_vision,
        other_lines.instructblip,
        other_lines.mistral3_vl,
        other_lines.llama4_scout,
        other_lines.lfm2_5_vl,
        other_lines.aria,
        other_lines.paligemma,
        other_lines.smolvlm,
        other_lines.fuyu,
        other_lines.phi4_multimodal,
    )
}
# What the templates write for a video.
FILMS = {
    "llava_onevision": "<video>",
    "video_llava": "<video>",
    "qwen2_5_omni": "<|vision_bos|><|VIDEO|><|vision_eos|>",
    "qwen3_5": "<|vision_start|><|video_pad|><|vision_end|>",
    "gemma4": "<|video|>",
    "qwen2_vl": "<|vision_start|><|video_pad|><|vision_end|>",
    "qwen2_5_vl": "<|vision_start|><|video_pad|><|vision_end|>",
    "qwen3_vl": "<|vision_start|><|video_pad|><|vision_end|>",
    "internvl_hf": "<video>\n",
    "glm4v": "<|begin_of_video|><|video|><|end_of_video|>",
}


def _showing_films(name: str) -> tuple[Any, Any]:
    config, processor = BUILDERS[name]()
    here, there = "{% elif part['type'] == 'text' %}", "{% elif part['type'] == 'video' %}"
    processor.chat_template = processor.chat_template.replace(here, there + FILMS[name] + here)
    return config, processor


SHOWING: dict[str, Callable[[], tuple[Any, Any]]] = {name: partial(_showing_films, name) for name in FILMS}


def save(name: str, folder: Path, builders: dict[str, Callable[[], tuple[Any, Any]]] = BUILDERS) -> Path:
    """Build a family's model with random weights, large enough that answers depend on the question."""
    config, processor = builders[name]()
    torch.manual_seed(0)
    model = getattr(hf, config.architectures[0] if config.architectures else class_of(config))(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(4.0)
            elif name.endswith("_gate"):  # closed at first, so that the layer behind it may go unnoticed
                parameter.fill_(1.0)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def class_of(config: Any) -> str:
    return type(config).__name__.replace("Config", "ForConditionalGeneration")
