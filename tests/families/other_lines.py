"""Tiny random models and processors of families with a line of their own."""

from __future__ import annotations

from typing import Any

import transformers as hf

from families.tiny import LAYERS, text, tiny, tokenizer

SMALL = {"height": 28, "width": 28}
ALTERNATING = ["sliding_attention", "full_attention"] * (LAYERS // 2)


def internvl_hf() -> tuple[Any, Any]:
    named = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    words = tokenizer(*named.values(), image="<IMG_CONTEXT>\n", named=named)
    config = hf.InternVLConfig(
        vision_config=tiny(hf.InternVLVisionConfig, image_size=[28, 28], patch_size=[14, 14]).to_dict(),
        text_config=text(hf.Qwen2Config, words).to_dict(),
        image_token_id=words.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=1,
        downsample_ratio=0.5,
    )
    processor = hf.InternVLProcessor(
        image_processor=hf.GotOcr2ImageProcessor(size={"height": 28, "width": 28}),
        tokenizer=words,
        video_processor=hf.InternVLVideoProcessor(size={"height": 28, "width": 28}),
        image_seq_length=1,
        chat_template=words.chat_template,
    )
    return config, processor


def gemma3() -> tuple[Any, Any]:
    named = {
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    }
    words = tokenizer(*named.values(), image="<start_of_image>", named=named)
    config = hf.Gemma3Config(
        text_config=text(hf.Gemma3TextConfig, words).to_dict(),
        vision_config=tiny(hf.SiglipVisionConfig, image_size=56, patch_size=14).to_dict(),
        mm_tokens_per_image=4,
        boi_token_index=3,
        eoi_token_index=4,
        image_token_index=5,
        eos_token_id=1,
    )
    processor = hf.Gemma3Processor(
        image_processor=hf.Gemma3ImageProcessor(size={"height": 56, "width": 56}),
        tokenizer=words,
        image_seq_length=4,
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


def idefics2() -> tuple[Any, Any]:
    words = tokenizer("<image>", "<fake_token_around_image>", "<end_of_utterance>", image="<image>")
    config = hf.Idefics2Config(
        text_config=text(hf.MistralConfig, words, sliding_window=4096).to_dict(),
        vision_config=tiny(type(hf.Idefics2Config().vision_config), image_size=56, patch_size=14).to_dict(),
        perceiver_config={
            "resampler_n_latents": 4,
            "resampler_depth": 1,
            "resampler_n_heads": 4,
            "hidden_size": 32,
            "resampler_head_dim": 8,
            "num_key_value_heads": 2,
            "hidden_act": "silu",
        },
        image_token_id=words.convert_tokens_to_ids("<image>"),
        pad_token_id=0,
    )
    processor = hf.Idefics2Processor(
        image_processor=hf.Idefics2ImageProcessor(size={"shortest_edge": 28, "longest_edge": 56}),
        tokenizer=words,
        image_seq_len=4,
        chat_template=words.chat_template,
    )
    return config, processor


def llama_vision() -> tuple[Any, Any]:
    words = tokenizer("<|image|>", "<|python_tag|>", image="<|image|>")
    layers = {
        "num_hidden_layers": LAYERS,
        "cross_attention_layers": [2],
        "hidden_size": 32,
        "intermediate_size": 48,
    }
    rope = {"rope_type": "default", "rope_theta": 10000.0}
    config = hf.MllamaConfig(
        vision_config=tiny(
            type(hf.MllamaConfig().vision_config),
            image_size=28,
            patch_size=14,
            num_hidden_layers=2,
            num_global_layers=1,
            intermediate_layers_indices=[0, 1],
            vision_output_dim=96,
            max_num_tiles=4,
            supported_aspect_ratios=[[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1], [4, 1]],
        ).to_dict(),
        text_config=dict(
            layers,
            vocab_size=len(words),
            num_attention_heads=4,
            num_key_value_heads=2,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=2,
            rope_parameters=rope,
            max_position_embeddings=512,
        ),
        image_token_index=words.convert_tokens_to_ids("<|image|>"),
    )
    processor = hf.MllamaProcessor(
        image_processor=hf.MllamaImageProcessor(size={"height": 28, "width": 28}, max_image_tiles=4),
        tokenizer=words,
        chat_template=words.chat_template,
    )
    return config, processor


def instructblip() -> tuple[Any, Any]:
    words = tokenizer("<image>")
    kind = hf.InstructBlipConfig
    config = kind(
        vision_config=tiny(type(kind().vision_config), image_size=28, patch_size=14).to_dict(),
        qformer_config=tiny(
            type(kind().qformer_config), encoder_hidden_size=32, vocab_size=len(words)
        ).to_dict(),
        text_config=text(hf.LlamaConfig, words).to_dict(),
        num_query_tokens=4,
        image_token_index=words.convert_tokens_to_ids("<image>"),
    )
    processor = hf.InstructBlipProcessor(
        image_processor=hf.BlipImageProcessor(size={"height": 28, "width": 28}),
        tokenizer=words,
        qformer_tokenizer=tokenizer("<image>"),
        num_query_tokens=4,
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


def fuyu() -> tuple[Any, Any]:
    """Its processor takes off the space that real tokenizers put before a text."""
    words = tokenizer(whole=("|SPEAKER|", "|NEWLINE|", "<0x04>"))
    words.chat_template = None
    config = hf.FuyuConfig(
        text_config=text(hf.PersimmonConfig, words).to_dict(),
        patch_size=14,
        num_channels=3,
        image_token_id=words.convert_tokens_to_ids("|SPEAKER|"),
        architectures=["FuyuForCausalLM"],
    )
    image = hf.FuyuImageProcessor(size={"height": 56, "width": 56}, patch_size={"height": 14, "width": 14})
    return config, hf.FuyuProcessor(image_processor=image, tokenizer=words)


def phi4_multimodal() -> tuple[Any, Any]:
    named = {"image_token": "<|endoftext10|>", "audio_token": "<|endoftext11|>"}
    words = tokenizer(*named.values(), image="<|endoftext10|>", named=named)
    kind = hf.Phi4MultimodalConfig
    config = text(
        kind,
        words,
        vision_config=tiny(
            type(kind().vision_config),
            image_size=448,  # the processor counts 256 tokens for it, whatever its size
            crop_size=448,
            image_token_id=words.convert_tokens_to_ids("<|endoftext10|>"),
        ).to_dict(),
        audio_config=tiny(
            type(kind().audio_config),
            num_blocks=1,
            ext_pw_out_channel=32,
            depthwise_separable_out_channel=32,
            nemo_conv_channels=32,
            audio_token_id=words.convert_tokens_to_ids("<|endoftext11|>"),
        ).to_dict(),
        architectures=["Phi4MultimodalForCausalLM"],
    )
    processor = hf.Phi4MultimodalProcessor(
        image_processor=hf.Phi4MultimodalImageProcessor(dynamic_hd=1),
        audio_processor=hf.Phi4MultimodalFeatureExtractor(),
        tokenizer=words,
        chat_template=words.chat_template,
    )
    return config, processor
