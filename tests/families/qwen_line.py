"""Tiny random models and processors of the Qwen line and GLM-4V, which number patches by a grid."""

from __future__ import annotations

from typing import Any

import transformers as hf

from families.tiny import text, tiny, tokenizer

ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
QWEN = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"


def _qwen(kind: str, video: str, **vision: Any) -> tuple[Any, Any]:
    words = tokenizer(*QWEN, image=QWEN_IMAGE)
    start, end, image, film = (words.convert_tokens_to_ids(name) for name in QWEN)
    outer = getattr(hf, f"{kind}Config")
    section = type(outer().vision_config)
    patch = {
        "depth": 2,
        "hidden_size": 32,
        "num_heads": 4,
        "spatial_merge_size": 2,
        "patch_size": 14,
        **vision,
    }
    config = outer(
        text_config=text(type(outer().text_config), words, rope_parameters=ROPE).to_dict(),
        vision_config=tiny(section, **{**patch, "patch_size": 14, **vision}).to_dict(),
        image_token_id=image,
        video_token_id=film,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )
    sizes = {"patch_size": config.vision_config.patch_size, "merge_size": 2}
    processor = getattr(hf, f"{kind}Processor")(
        image_processor=hf.Qwen2VLImageProcessor(**sizes),
        tokenizer=words,
        video_processor=getattr(hf, video)(**sizes),
        chat_template=words.chat_template,
    )
    return config, processor


def qwen2_vl() -> tuple[Any, Any]:
    return _qwen("Qwen2VL", "Qwen2VLVideoProcessor", embed_dim=32, mlp_ratio=2)


def qwen2_5_vl() -> tuple[Any, Any]:
    return _qwen(
        "Qwen2_5_VL", "Qwen2VLVideoProcessor", window_size=28, fullatt_block_indexes=[1], out_hidden_size=32
    )


def qwen3_vl() -> tuple[Any, Any]:
    return _qwen(
        "Qwen3VL",
        "Qwen3VLVideoProcessor",
        patch_size=16,
        deepstack_visual_indexes=[0, 1],
        num_position_embeddings=16,
        out_hidden_size=32,
    )


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


def glm4v() -> tuple[Any, Any]:
    marks = {
        "image_start_token_id": "<|begin_of_image|>",
        "image_end_token_id": "<|end_of_image|>",
        "image_token_id": "<|image|>",
        "video_start_token_id": "<|begin_of_video|>",
        "video_end_token_id": "<|end_of_video|>",
        "video_token_id": "<|video|>",
    }
    words = tokenizer(*marks.values(), image="<|begin_of_image|><|image|><|end_of_image|>")
    ids = {name: words.convert_tokens_to_ids(mark) for name, mark in marks.items()}
    rope = {**ROPE, "partial_rotary_factor": 1.0}
    kind = hf.Glm4vConfig
    config = kind(
        text_config=text(type(kind().text_config), words, rope_parameters=rope).to_dict(),
        vision_config=tiny(
            type(kind().vision_config),
            depth=2,
            hidden_size=32,
            num_heads=4,
            patch_size=14,
            spatial_merge_size=2,
            image_size=56,
            out_hidden_size=32,
        ).to_dict(),
        **ids,
    )
    processor = hf.Glm4vProcessor(
        image_processor=hf.Glm4vImageProcessor(size={"shortest_edge": 784, "longest_edge": 3136}),
        tokenizer=words,
        video_processor=hf.Glm4vVideoProcessor(),
        chat_template=words.chat_template,
    )
    return config, processor


def qwen2_5_omni() -> tuple[Any, Any]:
    """The part that answers in text; the one that speaks is no decoder of answers."""
    named = {
        "image_token": "<|IMAGE|>",
        "video_token": "<|VIDEO|>",
        "audio_token": "<|AUDIO|>",
        "vision_bos_token": "<|vision_bos|>",
        "vision_eos_token": "<|vision_eos|>",
        "audio_bos_token": "<|audio_bos|>",
        "audio_eos_token": "<|audio_eos|>",
    }
    words = tokenizer(*named.values(), image="<|vision_bos|><|IMAGE|><|vision_eos|>", named=named)
    ids = {name: words.convert_tokens_to_ids(mark) for name, mark in named.items()}
    kind = hf.Qwen2_5OmniThinkerConfig
    config = kind(
        text_config=text(type(kind().text_config), words, rope_parameters=ROPE).to_dict(),
        vision_config=tiny(
            hf.Qwen2_5OmniVisionEncoderConfig,
            depth=2,
            hidden_size=32,
            num_heads=4,
            patch_size=14,
            spatial_merge_size=2,
            window_size=28,
            fullatt_block_indexes=[1],
            out_hidden_size=32,
        ).to_dict(),
        audio_config=tiny(hf.Qwen2_5OmniAudioEncoderConfig, output_dim=32).to_dict(),
        image_token_id=ids["image_token"],
        image_token_index=ids["image_token"],
        video_token_id=ids["video_token"],
        video_token_index=ids["video_token"],
        audio_token_id=ids["audio_token"],
        audio_token_index=ids["audio_token"],
        vision_start_token_id=ids["vision_bos_token"],
        vision_end_token_id=ids["vision_eos_token"],
        audio_start_token_id=ids["audio_bos_token"],
        audio_end_token_id=ids["audio_eos_token"],
    )
    sizes = {"patch_size": 14, "merge_size": 2, "min_pixels": 32 * 32, "max_pixels": 64 * 64}
    processor = hf.Qwen2_5OmniProcessor(
        image_processor=hf.Qwen2VLImageProcessor(**sizes),
        video_processor=hf.Qwen2VLVideoProcessor(**sizes),
        feature_extractor=hf.WhisperFeatureExtractor(feature_size=128),
        tokenizer=words,
        chat_template=words.chat_template,
    )
    return config, processor
