"""Folders with tiny random models and their processors, for each family that lmms-eval wraps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from families.tiny import tiny
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

LAYERS = 6
PAD, END, BEGIN = "<pad>", "</s>", "<s>"
TURNS = (
    "{% for message in messages %}{{ message['role'] }}: "
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}\n{% endfor %}assistant:"
)


def tokenizer(
    *special: str, image: str = "", named: dict[str, str] | None = None
) -> hf.PreTrainedTokenizerFast:
    """One token a byte, and the special ones; the chat template writes `image` for an image."""
    names = [PAD, END, BEGIN, *special]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*names, *alphabet])}
    backend = Tokenizer(models.BPE(vocabulary, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    made = hf.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        eos_token=END,
        bos_token=BEGIN,
        **({"extra_special_tokens": named} if named else {"additional_special_tokens": list(special)}),
        model_max_length=4096,
        padding_side="left",
    )
    made.chat_template = TURNS.replace("IMAGE", image)
    return made


def text(kind: type, words: hf.PreTrainedTokenizerFast, **given: Any) -> Any:
    return tiny(
        kind,
        layers=LAYERS,
        vocab_size=len(words),
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
        max_position_embeddings=4096,
        **given,
    )


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


BUILDERS: dict[str, Callable[[], tuple[Any, Any]]] = {
    made.__name__: made
    for made in (
        qwen2_vl,
        qwen2_5_vl,
        qwen3_vl,
        internvl_hf,
        gemma3,
        idefics2,
        llama_vision,
        instructblip,
        glm4v,
    )
}


def save(name: str, folder: Path, builders: dict[str, Callable[[], tuple[Any, Any]]] = BUILDERS) -> Path:
    """Build a family's model with random weights, large enough that answers depend on the question."""
    config, processor = builders[name]()
    torch.manual_seed(0)
    model = getattr(hf, config.architectures[0] if config.architectures else _class_of(config))(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4.0)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _class_of(config: Any) -> str:
    return type(config).__name__.replace("Config", "ForConditionalGeneration")
