"""Tiny random models and processors of the newer families, beside those in wrapped.py."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import transformers as hf
import wrapped
from calibration.vision_families import LLAVA
from families.tiny import tiny
from wrapped import LAYERS, QWEN, QWEN_IMAGE, ROPE, text, tokenizer

SMALL = {"height": 28, "width": 28}
ALTERNATING = ["sliding_attention", "full_attention"] * (LAYERS // 2)


def qwen3_5() -> tuple[Any, Any]:
    words = tokenizer(*QWEN, image=QWEN_IMAGE)
    start, end, image, film = (words.convert_tokens_to_ids(name) for name in QWEN)
    linear = {
        "linear_num_value_heads": 4,
        "linear_num_key_heads": 2,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "head_dim": 16,
        "layer_types": ["linear_attention", "linear_attention", "full_attention"] * 2,
    }
    config = hf.Qwen3_5Config(
        text_config=text(hf.Qwen3_5TextConfig, words, rope_parameters=ROPE, **linear).to_dict(),
        vision_config=tiny(
            hf.Qwen3_5VisionConfig,
            depth=2,
            hidden_size=32,
            num_heads=4,
            spatial_merge_size=2,
            patch_size=16,
            out_hidden_size=32,
            num_position_embeddings=16,
        ).to_dict(),
        image_token_id=image,
        video_token_id=film,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )
    sizes = {"patch_size": 16, "merge_size": 2}
    processor = hf.Qwen3VLProcessor(
        image_processor=hf.Qwen2VLImageProcessor(**sizes),
        tokenizer=words,
        video_processor=hf.Qwen3VLVideoProcessor(**sizes),
        chat_template=words.chat_template,
    )
    return config, processor


def gemma4() -> tuple[Any, Any]:
    named = {
        "image_token": "<|image|>",
        "boi_token": "<|image>",
        "eoi_token": "<image|>",
        "video_token": "<|video|>",
        "audio_token": "<|audio|>",
        "boa_token": "<|audio>",
        "eoa_token": "<audio|>",
    }
    words = tokenizer(*named.values(), image="<|image|>", named=named)
    ids = {name: words.convert_tokens_to_ids(mark) for name, mark in named.items()}
    config = hf.Gemma4Config(
        text_config=text(
            hf.Gemma4TextConfig,
            words,
            layer_types=ALTERNATING,
            hidden_size_per_layer_input=0,
            global_head_dim=16,
            use_bidirectional_attention="vision",
            sliding_window=512,
        ).to_dict(),
        vision_config=tiny(
            hf.Gemma4VisionConfig, pooling_kernel_size=2, position_embedding_size=1024
        ).to_dict(),
        audio_config=None,
        image_token_id=ids["image_token"],
        video_token_id=ids["video_token"],
        audio_token_id=ids["audio_token"],
        boi_token_id=ids["boi_token"],
        eoi_token_id=ids["eoi_token"],
    )
    patches = {"patch_size": 14, "pooling_kernel_size": 2}
    processor = hf.Gemma4Processor(
        feature_extractor=hf.Gemma4AudioFeatureExtractor(),
        image_processor=hf.Gemma4ImageProcessor(**patches),
        tokenizer=words,
        video_processor=hf.Gemma4VideoProcessor(**patches),
        chat_template=words.chat_template,
    )
    return config, processor


def mistral3_vl() -> tuple[Any, Any]:
    words = tokenizer("[IMG]", "[IMG_BREAK]", "[IMG_END]", image="[IMG]")
    config = hf.Mistral3Config(
        text_config=text(hf.MistralConfig, words, sliding_window=None).to_dict(),
        vision_config=tiny(hf.PixtralVisionConfig, image_size=56, patch_size=14).to_dict(),
        image_token_id=words.convert_tokens_to_ids("[IMG]"),
        spatial_merge_size=2,
    )
    processor = hf.PixtralProcessor(
        image_processor=hf.PixtralImageProcessor(size={"longest_edge": 56}, patch_size=14),
        tokenizer=words,
        patch_size=14,
        spatial_merge_size=2,
        chat_template=words.chat_template,
    )
    return config, processor


def llama4_scout() -> tuple[Any, Any]:
    marks = ("<|image|>", "<|patch|>", "<|image_start|>", "<|image_end|>", "<|tile_x_separator|>")
    words = tokenizer(*marks, "<|tile_y_separator|>", image="<|image|>")
    config = hf.Llama4Config(
        text_config=text(
            hf.Llama4TextConfig,
            words,
            moe_layers=[1, 3, 5],
            no_rope_layers=[1, 1, 0, 0, 1, 1],
            attention_chunk_size=512,
        ).to_dict(),
        vision_config=tiny(
            hf.Llama4VisionConfig,
            image_size=56,
            patch_size=14,
            intermediate_size=128,
            projector_input_dim=32,
            projector_output_dim=32,
            vision_output_dim=32,
        ).to_dict(),
        image_token_index=words.convert_tokens_to_ids("<|patch|>"),
    )
    processor = hf.Llama4Processor(
        image_processor=hf.Llama4ImageProcessor(size={"height": 56, "width": 56}, max_patches=1),
        tokenizer=words,
        patch_size=14,
        pixel_shuffle_ratio=0.5,
        chat_template=words.chat_template,
    )
    return config, processor


def lfm2_5_vl() -> tuple[Any, Any]:
    named = {
        "image_token": "<image>",
        "image_start_token": "<|image_start|>",
        "image_end_token": "<|image_end|>",
        "image_thumbnail": "<|img_thumbnail|>",
    }
    words = tokenizer(*named.values(), image="<image>", named=named)
    config = hf.Lfm2VlConfig(
        text_config=text(
            hf.Lfm2Config,
            words,
            layer_types=["conv", "full_attention", "conv"] * 2,
            block_ff_dim=48,
            block_multiple_of=8,
        ).to_dict(),
        vision_config=tiny(hf.Siglip2VisionConfig, num_patches=16, patch_size=14).to_dict(),
        image_token_id=words.convert_tokens_to_ids("<image>"),
        downsample_factor=2,
        projector_hidden_size=32,
    )
    processor = hf.Lfm2VlProcessor(
        image_processor=hf.Lfm2VlImageProcessor(
            encoder_patch_size=14,
            tile_size=56,
            do_image_splitting=False,
            min_image_tokens=4,
            max_image_tokens=16,
            max_num_patches=64,
        ),
        tokenizer=words,
        chat_template=words.chat_template,
    )
    return config, processor


def aria() -> tuple[Any, Any]:
    words = tokenizer("<|img|>", image="<|img|>", named={"image_token": "<|img|>"})
    config = hf.AriaConfig(
        text_config=text(hf.AriaTextConfig, words).to_dict(),
        vision_config=tiny(type(hf.AriaConfig().vision_config), image_size=980, patch_size=98).to_dict(),
        projector_patch_to_query_dict={25: 4, 100: 4},
        image_token_id=words.convert_tokens_to_ids("<|img|>"),
    )
    processor = hf.AriaProcessor(
        image_processor=hf.AriaImageProcessor(max_image_size=490, min_image_size=336),
        tokenizer=words,
        size_conversion={490: 4, 980: 4},
        chat_template=words.chat_template,
    )
    return config, processor


def paligemma() -> tuple[Any, Any]:
    words = tokenizer("<image>", named={"image_token": "<image>"})
    words.chat_template = None
    config = hf.PaliGemmaConfig(
        text_config=text(hf.GemmaConfig, words).to_dict(),
        vision_config=tiny(hf.SiglipVisionConfig, image_size=28, patch_size=14).to_dict(),
        image_token_id=words.convert_tokens_to_ids("<image>"),
        hidden_size=32,
        projection_dim=32,
    )
    image = hf.SiglipImageProcessor(size=SMALL)
    image.image_seq_length = 4
    return config, hf.PaliGemmaProcessor(image_processor=image, tokenizer=words)


def smolvlm() -> tuple[Any, Any]:
    named = {
        "fake_image_token": "<fake_token_around_image>",
        "image_token": "<image>",
        "global_image_token": "<global-img>",
        "end_of_utterance_token": "<end_of_utterance>",
    }
    words = tokenizer(*named.values(), image="<image>", named=named)
    config = hf.SmolVLMConfig(
        text_config=text(hf.LlamaConfig, words).to_dict(),
        vision_config=tiny(hf.SmolVLMVisionConfig, image_size=56, patch_size=14).to_dict(),
        image_token_id=words.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    processor = hf.SmolVLMProcessor(
        image_processor=hf.SmolVLMImageProcessor(
            size={"longest_edge": 56}, max_image_size={"longest_edge": 56}, do_image_splitting=False
        ),
        tokenizer=words,
        video_processor=hf.SmolVLMVideoProcessor(
            size={"longest_edge": 56}, max_image_size={"longest_edge": 56}
        ),
        image_seq_len=4,
        chat_template=words.chat_template,
    )
    return config, processor


def llava_onevision() -> tuple[Any, Any]:
    return LLAVA["llava_onevision"]()


MADE = (llava_onevision, qwen3_5, gemma4, mistral3_vl, llama4_scout, lfm2_5_vl, aria, paligemma, smolvlm)
BUILDERS: dict[str, Callable[[], tuple[Any, Any]]] = {made.__name__: made for made in MADE}
BUILDERS |= {name: made for name, made in (wrapped.BUILDERS | LLAVA).items() if name not in BUILDERS}
# What the templates write for a video.
FILMS = {
    "llava_onevision": "<video>",
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
