"""The families: a tiny configuration of each, and what its forward pass needs besides text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import transformers as hf
from transformers import PreTrainedConfig

from families.tiny import LAYERS, tiny

ALTERNATING = ["sliding_attention", "full_attention"] * (LAYERS // 2)


@dataclass(frozen=True)
class Family:
    """A family of models.

    Attributes:
        model: name of the class in transformers.
        config: makes the tiny configuration.
        inputs: name of the function in inputs.py that makes what the model needs besides text.
        sets: sets of layers to delete.
        stay: layers that must be refused.
        attentions: attention implementations that the family has.
    """

    model: str
    config: Callable[[], PreTrainedConfig]
    inputs: str = "text"
    sets: tuple[tuple[int, ...], ...] = ((0,), (LAYERS - 1,), (1, 2, 4))
    stay: tuple[int, ...] = ()
    attentions: tuple[str, ...] = ("eager", "sdpa")


def text(kind: str, layers: int = LAYERS, **given: Any) -> PreTrainedConfig:
    return tiny(getattr(hf, kind), layers=layers, **given)


def nested(
    kind: str, text_kind: str | None = None, /, text_given: dict[str, Any] | None = None, **given: Any
) -> Any:
    """A configuration with a text section, by default of the class the family uses."""
    outer = getattr(hf, kind)
    inner = getattr(hf, text_kind) if text_kind else type(outer().text_config)
    return tiny(outer, text_config=tiny(inner, layers=LAYERS, **(text_given or {})), **given)


def clip(**given: Any) -> PreTrainedConfig:
    return tiny(hf.CLIPVisionConfig, **given)


def siglip(**given: Any) -> PreTrainedConfig:
    return tiny(hf.SiglipVisionConfig, **given)


def gemma4_vision() -> PreTrainedConfig:
    return tiny(hf.Gemma4VisionConfig, pooling_kernel_size=2, position_embedding_size=16)


def llava(text_kind: str, **text_given: Any) -> Callable[[], PreTrainedConfig]:
    return lambda: nested("LlavaConfig", text_kind, text_given, vision_config=clip())


MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
FLORENCE_VISION = {
    "depths": [1] * 4,
    "embed_dim": [8, 8, 16, 32],
    "num_heads": [2] * 4,
    "num_groups": [2] * 4,
    "projection_dim": 32,
}
SMALL_VQ = {
    "base_channels": 32,
    "channel_multiplier": [1, 1],
    "num_res_blocks": 1,
    "hidden_size": 32,
    "attn_resolutions": [],
}
NEMOTRON = {
    "layers_block_type": [
        "linear_attention",
        "full_attention",
        "moe",
        "linear_attention",
        "full_attention",
        "mlp",
    ],
    "ssm_state_size": 16,
    "mamba_num_heads": 8,
    "mamba_head_dim": 8,
    "n_groups": 2,
    "moe_shared_expert_intermediate_size": 16,
    "pad_token_id": 0,
}
LINEAR_ROPE = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
GLM_ROPE = {**MROPE, "partial_rotary_factor": 1.0}
QWEN_VISION = {"depth": 2, "hidden_size": 32, "num_heads": 4, "patch_size": 4, "spatial_merge_size": 2}
GEMMA3N = {
    "layer_types": ALTERNATING,
    "num_kv_shared_layers": 2,
    "hidden_size_per_layer_input": 4,
    "vocab_size_per_layer_input": 128,
    "laurel_rank": 4,
    "activation_sparsity_pattern": [0.5, 0.5, 0.0, 0.0, 0.0, 0.0],
    "intermediate_size": [48, 40, 48, 40, 48, 40],
}
SLIDING = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 3}


def qwen_vl(
    kind: str, text_given: dict[str, Any] | None = None, **vision: Any
) -> Callable[[], PreTrainedConfig]:
    def config() -> PreTrainedConfig:
        section = type(getattr(hf, kind)().vision_config)
        given = {"rope_parameters": MROPE, **(text_given or {})}
        return nested(kind, None, given, vision_config=tiny(section, **QWEN_VISION, **vision))

    return config


def blip(kind: str, text_kind: str) -> Callable[[], PreTrainedConfig]:
    def config() -> PreTrainedConfig:
        outer = getattr(hf, kind)
        qformer = tiny(type(outer().qformer_config), encoder_hidden_size=32)
        given = (
            {"dropout_rate": 0.0, "decoder_start_token_id": 0, "bos_token_id": 1}
            if text_kind == "T5Config"
            else {"word_embed_proj_dim": 32, "dropout": 0.0}
        )
        return nested(kind, text_kind, given, qformer_config=qformer, num_query_tokens=4)

    return config


FAMILIES: dict[str, Family] = {
    "llama": Family("LlamaForCausalLM", lambda: text("LlamaConfig")),
    "mistral": Family("MistralForCausalLM", lambda: text("MistralConfig")),
    "qwen2": Family("Qwen2ForCausalLM", lambda: text("Qwen2Config", **SLIDING)),
    "qwen3": Family("Qwen3ForCausalLM", lambda: text("Qwen3Config")),
    "gpt_neox": Family("GPTNeoXForCausalLM", lambda: text("GPTNeoXConfig")),
    "llava_llama": Family("LlavaForConditionalGeneration", llava("LlamaConfig"), "llava"),
    "llava_mistral": Family("LlavaForConditionalGeneration", llava("MistralConfig"), "llava"),
    "llava_qwen2": Family("LlavaForConditionalGeneration", llava("Qwen2Config", **SLIDING), "llava"),
    "llava_next": Family(
        "LlavaNextForConditionalGeneration",
        lambda: nested(
            "LlavaNextConfig", "MistralConfig", vision_config=clip(), image_grid_pinpoints=[[28, 56]]
        ),
        inputs="tiles",
    ),
    "llava_next_video": Family(
        "LlavaNextVideoForConditionalGeneration",
        lambda: nested(
            "LlavaNextVideoConfig", "LlamaConfig", vision_config=clip(), image_grid_pinpoints=[[28, 56]]
        ),
        inputs="tiles",
    ),
    "llava_onevision": Family(
        "LlavaOnevisionForConditionalGeneration",
        lambda: nested(
            "LlavaOnevisionConfig",
            "Qwen2Config",
            SLIDING,
            vision_config=siglip(),
            image_grid_pinpoints=[[28, 56]],
        ),
        inputs="tiles",
    ),
    "video_llava": Family(
        "VideoLlavaForConditionalGeneration",
        lambda: nested("VideoLlavaConfig", "LlamaConfig", vision_config=clip()),
        inputs="image",
    ),
    "vipllava": Family(
        "VipLlavaForConditionalGeneration",
        lambda: nested("VipLlavaConfig", "LlamaConfig", vision_config=clip(), vision_feature_layers=[-1, -2]),
        inputs="image",
    ),
    "qwen2_vl": Family(
        "Qwen2VLForConditionalGeneration", qwen_vl("Qwen2VLConfig", SLIDING, embed_dim=32), "qwen_vl"
    ),
    "qwen2_5_vl": Family(
        "Qwen2_5_VLForConditionalGeneration",
        qwen_vl("Qwen2_5_VLConfig", SLIDING, window_size=16, fullatt_block_indexes=[1], out_hidden_size=32),
        "qwen_vl",
    ),
    "qwen3_vl": Family(
        "Qwen3VLForConditionalGeneration",
        qwen_vl("Qwen3VLConfig", deepstack_visual_indexes=[0, 1], num_position_embeddings=16),
        "qwen_vl",
        ((2,), (LAYERS - 1,), (2, 4)),
        stay=(0, 1),
    ),
    "qwen3_vl_moe": Family(
        "Qwen3VLMoeForConditionalGeneration",
        qwen_vl(
            "Qwen3VLMoeConfig",
            {"decoder_sparse_step": 2, "mlp_only_layers": [3]},
            deepstack_visual_indexes=[1],
            num_position_embeddings=16,
        ),
        "qwen_vl",
        ((1,), (LAYERS - 1,), (2, 3)),
        stay=(0,),
    ),
    "qwen3_5": Family(
        "Qwen3_5ForConditionalGeneration",
        qwen_vl(
            "Qwen3_5Config",
            {
                "layer_types": ["linear_attention", "linear_attention", "full_attention"] * 2,
                "linear_num_value_heads": 4,
                "linear_num_key_heads": 2,
                "linear_key_head_dim": 8,
                "linear_value_head_dim": 8,
                "head_dim": 16,
            },
            num_position_embeddings=16,
        ),
        "qwen_vl",
    ),
    "qwen2_5_omni_thinker": Family(
        "Qwen2_5OmniThinkerForConditionalGeneration",
        lambda: nested(
            "Qwen2_5OmniThinkerConfig",
            None,
            {"rope_parameters": MROPE, **SLIDING},
            vision_config=tiny(hf.Qwen2_5OmniVisionEncoderConfig, **QWEN_VISION),
            audio_config=tiny(hf.Qwen2_5OmniAudioEncoderConfig),
            vision_start_token_id=110,
        ),
        inputs="grid",
    ),
    "video_llama_3": Family(
        "VideoLlama3ForConditionalGeneration",
        lambda: nested("VideoLlama3Config", None, SLIDING),
        inputs="grid",
    ),
    "glm4v": Family(
        "Glm4vForConditionalGeneration",
        lambda: nested("Glm4vConfig", None, {"rope_parameters": GLM_ROPE}),
        inputs="grid",
    ),
    "glm4v_moe": Family(
        "Glm4vMoeForConditionalGeneration",
        lambda: nested(
            "Glm4vMoeConfig",
            None,
            {"rope_parameters": GLM_ROPE, "first_k_dense_replace": 2, "n_group": 1, "topk_group": 1},
        ),
        inputs="grid",
    ),
    "glm46v": Family(
        "Glm46VForConditionalGeneration",
        lambda: nested("Glm46VConfig", None, {"rope_parameters": GLM_ROPE}),
        inputs="grid",
    ),
    "internvl": Family(
        "InternVLForConditionalGeneration",
        lambda: nested(
            "InternVLConfig",
            "Qwen2Config",
            SLIDING,
            vision_config=tiny(hf.InternVLVisionConfig, image_size=[28, 28], patch_size=[14, 14]),
        ),
        inputs="image",
    ),
    "paligemma": Family(
        "PaliGemmaForConditionalGeneration", lambda: nested("PaliGemmaConfig", "GemmaConfig"), "paligemma"
    ),
    "paligemma2": Family(
        "PaliGemmaForConditionalGeneration",
        lambda: nested("PaliGemmaConfig", "Gemma2Config", {"layer_types": ALTERNATING}),
        "paligemma",
        attentions=("eager",),  # Gemma 2 has no other
    ),
    "gemma3": Family(
        "Gemma3ForConditionalGeneration",
        lambda: nested(
            "Gemma3Config", None, {"layer_types": ALTERNATING}, vision_config=siglip(), mm_tokens_per_image=4
        ),
        sets=((0,), (LAYERS - 1,), (1, 3, 5), (0, 2, 4)),
        inputs="image",
    ),
    "gemma3n": Family(
        "Gemma3nForCausalLM",
        lambda: text("Gemma3nTextConfig", **GEMMA3N),
        sets=((0,), (LAYERS - 1,), (1, 4), (0, 1, 5)),
        stay=(2, 3),
    ),
    "gemma3n_image": Family(
        "Gemma3nForConditionalGeneration",
        lambda: nested(
            "Gemma3nConfig",
            None,
            {**GEMMA3N, "vocab_size_per_layer_input": 112},  # image tokens lie beyond
            vision_config=hf.Gemma3nVisionConfig(
                architecture="test_resnet",  # its own tower has 300 million parameters
                model_args={"output_stride": 16},
                hidden_size=96,
                vocab_size=8,
                vocab_offset=112,
            ),
            audio_config=tiny(
                hf.Gemma3nAudioConfig,
                conf_num_hidden_layers=1,
                conf_num_attention_heads=4,
                sscp_conv_channel_size=[8, 8],
                vocab_size=8,
                vocab_offset=120,
            ),
            image_token_id=112,
            audio_token_id=120,
            vision_soft_tokens_per_image=4,
        ),
        "image",
        sets=((LAYERS - 1,), (0, 1, 5)),
        stay=(2, 3),
    ),
    "gemma4": Family(
        "Gemma4ForConditionalGeneration",
        lambda: nested(
            "Gemma4Config",
            None,
            {
                "layer_types": ALTERNATING,
                "num_kv_shared_layers": 2,
                "hidden_size_per_layer_input": 4,
                "vocab_size_per_layer_input": 128,
                "global_head_dim": 16,
            },
            vision_config=gemma4_vision(),
        ),
        "patches",
        sets=((0,), (4,), (0, 1, 4)),
        stay=(2, 3, 5),
    ),
    "gemma4_dense": Family(
        "Gemma4ForConditionalGeneration",
        lambda: nested(
            "Gemma4Config",
            None,
            {
                "layer_types": ALTERNATING,
                "hidden_size_per_layer_input": 0,
                "global_head_dim": 16,
                "use_bidirectional_attention": "vision",
            },
            vision_config=gemma4_vision(),
        ),
        "patches",
        sets=((0,), (4,), (4, 5), (0, 1, 2)),
        stay=(5,),
    ),
    "idefics": Family(
        "IdeficsForVisionText2Text",
        lambda: text("IdeficsConfig", cross_layer_interval=2),
        "idefics",
        sets=(),
        stay=tuple(range(LAYERS)),
    ),
    "idefics2": Family(
        "Idefics2ForConditionalGeneration", lambda: nested("Idefics2Config", "MistralConfig"), inputs="stack"
    ),
    "idefics3": Family(
        "Idefics3ForConditionalGeneration", lambda: nested("Idefics3Config", "LlamaConfig"), inputs="stack"
    ),
    "smolvlm": Family(
        "SmolVLMForConditionalGeneration", lambda: nested("SmolVLMConfig", "LlamaConfig"), inputs="stack"
    ),
    "mistral3": Family(
        "Mistral3ForConditionalGeneration",
        lambda: nested(
            "Mistral3Config",
            "MistralConfig",
            vision_config=tiny(hf.PixtralVisionConfig),
            spatial_merge_size=1,  # transformers 5.24 cannot split what is one token
        ),
        inputs="image",
    ),
    "pixtral": Family(
        "LlavaForConditionalGeneration",
        lambda: nested(
            "LlavaConfig",
            "MistralConfig",
            vision_config=tiny(hf.PixtralVisionConfig),
            vision_feature_select_strategy="full",  # the tower has no class token
        ),
        inputs="image",
    ),
    "aya_vision": Family(
        "AyaVisionForConditionalGeneration",
        lambda: nested(
            "AyaVisionConfig", "Cohere2Config", {"layer_types": ALTERNATING}, vision_config=siglip()
        ),
        inputs="image",
    ),
    "cohere2_vision": Family(
        "Cohere2VisionForConditionalGeneration",
        lambda: nested(
            "Cohere2VisionConfig",
            "Cohere2Config",
            {"layer_types": ALTERNATING},
            vision_config=siglip(),
            alignment_intermediate_size=48,
        ),
        inputs="image",
    ),
    "ovis2": Family(
        "Ovis2ForConditionalGeneration", lambda: nested("Ovis2Config", "Qwen2Config", SLIDING), inputs="image"
    ),
    "mllama": Family(
        "MllamaForConditionalGeneration",
        lambda: nested(
            "MllamaConfig",
            None,
            {"cross_attention_layers": [1, 4]},
            vision_config=tiny(
                hf.MllamaVisionConfig,
                intermediate_layers_indices=[0, 1],
                vision_output_dim=96,
                num_global_layers=1,
            ),
        ),
        "mllama",
        sets=((LAYERS - 1,), (1,), (2, 4), (0, 1)),
        stay=(0,),
    ),
    "llama4": Family(
        "Llama4ForConditionalGeneration",
        lambda: nested(
            "Llama4Config",
            None,
            {"moe_layers": [1, 3, 5], "no_rope_layers": [1, 1, 0, 0, 1, 1], "attention_chunk_size": 8},
            vision_config=tiny(
                hf.Llama4VisionConfig,
                intermediate_size=128,
                projector_input_dim=32,
                projector_output_dim=32,
                vision_output_dim=32,
            ),
        ),
        inputs="image",
    ),
    "lfm2_vl": Family(
        "Lfm2VlForConditionalGeneration",
        lambda: nested(
            "Lfm2VlConfig",
            "Lfm2Config",
            {
                "layer_types": ["conv", "full_attention", "conv"] * 2,
                "block_ff_dim": 48,
                "block_multiple_of": 8,
            },
        ),
        inputs="patches",
        sets=((0,), (LAYERS - 1,), (1, 2)),
    ),
    "kosmos2": Family(
        "Kosmos2ForConditionalGeneration",
        lambda: nested("Kosmos2Config", None, {"dropout": 0.0}, latent_query_num=4),
        "kosmos2",
    ),
    "kosmos2_5": Family(
        "Kosmos2_5ForConditionalGeneration",
        lambda: nested("Kosmos2_5Config", None, {"dropout": 0.0}, latent_query_num=4),
        "kosmos2_5",
    ),
    "instructblip": Family(
        "InstructBlipForConditionalGeneration", blip("InstructBlipConfig", "OPTConfig"), "blip"
    ),
    "instructblip_t5": Family(
        "InstructBlipForConditionalGeneration",
        blip("InstructBlipConfig", "T5Config"),
        "blip",
        ((1,), (LAYERS - 1,), (2, 4)),
        stay=(0,),
    ),
    "instructblipvideo": Family(
        "InstructBlipVideoForConditionalGeneration", blip("InstructBlipVideoConfig", "OPTConfig"), "blip"
    ),
    "blip_2": Family("Blip2ForConditionalGeneration", blip("Blip2Config", "OPTConfig"), "blip"),
    "phi4_multimodal": Family(
        "Phi4MultimodalForCausalLM",
        lambda: text(
            "Phi4MultimodalConfig",
            pad_token_id=0,
            vision_config=tiny(hf.Phi4MultimodalConfig().vision_config.__class__, crop_size=28),
            audio_config=tiny(
                hf.Phi4MultimodalConfig().audio_config.__class__,
                num_blocks=1,
                ext_pw_out_channel=32,
                depthwise_separable_out_channel=32,
                nemo_conv_channels=32,
            ),
        ),
        inputs="phi4",
    ),
    "emu3": Family(
        "Emu3ForConditionalGeneration",
        lambda: nested(
            "Emu3Config",
            vq_config={**SMALL_VQ, "codebook_size": 8, "latent_channels": 32, "embed_dim": 32},
            vocabulary_map={
                "<image>": 100,
                "<|extra_200|>": 101,
                **{f"<|visual token {code:06}|>": 102 + code for code in range(8)},
            },
        ),
        inputs="small",
    ),
    "chameleon": Family(
        "ChameleonForConditionalGeneration",
        lambda: text(
            "ChameleonConfig",
            vq_config={**SMALL_VQ, "num_embeddings": 8},
            vocabulary_map={
                "<image>": 100,
                **{f"IMGIMG{'ABCDEFGH'[code]}Z": 102 + code for code in range(8)},
            },
        ),
        inputs="small",
    ),
    "florence2": Family(
        "Florence2ForConditionalGeneration",
        lambda: nested("Florence2Config", "BartConfig", {"dropout": 0.0}, vision_config=FLORENCE_VISION),
        inputs="image",
    ),
    "deepseek_vl": Family(
        "DeepseekVLForConditionalGeneration",
        lambda: nested("DeepseekVLConfig", "LlamaConfig", vision_config=siglip()),
        inputs="image",
    ),
    "deepseek_vl_hybrid": Family(
        "DeepseekVLHybridForConditionalGeneration",
        lambda: nested(
            "DeepseekVLHybridConfig",
            "LlamaConfig",
            vision_config=siglip(),
            high_res_vision_config=tiny(
                hf.SamVisionConfig,
                output_channels=32,
                mlp_dim=48,
                global_attn_indexes=[1],
                image_size=32,
                patch_size=8,
            ),
        ),
        inputs="twice",
    ),
    "aria": Family(
        "AriaForConditionalGeneration",
        lambda: nested("AriaConfig", projector_patch_to_query_dict={4: 3}),
        inputs="image",
    ),
    "fuyu": Family("FuyuForCausalLM", lambda: nested("FuyuConfig"), inputs="patches"),
    "molmo2": Family(
        "Molmo2ForConditionalGeneration",
        lambda: nested(
            "Molmo2Config",
            None,
            {"rope_scaling_layers": [1, 3, 5], "additional_vocab_size": 8, "rope_parameters": LINEAR_ROPE},
            image_patch_id=110,
            vision_config=tiny(hf.Molmo2VisionConfig, image_size=[56, 56]),
            adapter_config=tiny(hf.Molmo2AdapterConfig, text_hidden_size=32, vision_feature_layer=[0]),
        ),
        inputs="patches",
    ),
    "granite4_vision": Family(
        "Granite4VisionForConditionalGeneration",
        lambda: nested(
            "Granite4VisionConfig",
            None,
            vision_config=clip(hidden_size=64),
            qformer_config=dict(tiny(hf.Blip2QFormerConfig).to_dict(), cross_attention_frequency=1),
            deepstack_layer_map=[[0, 1], [1, 3]],
            spatial_target_layers=[3],
            downsample_rate="1/2",
            image_grid_pinpoints=[[28, 28]],
            projector_dropout=0.0,
        ),
        "granite",
        ((0,), (LAYERS - 1,), (2, 4)),
        stay=(1, 3),
    ),
    "git": Family(
        "GitForCausalLM",
        lambda: text("GitConfig", vision_config=tiny(hf.GitVisionConfig), hidden_dropout_prob=0.0),
        inputs="git",
        attentions=("eager",),
    ),
    "nemotron_h_omni": Family(
        "NemotronH_Omni_Reasoning_V3",
        lambda: hf.NemotronH_Omni_Reasoning_V3_Config(
            text_config=tiny(hf.NemotronHConfig, **NEMOTRON),
            vision_config=tiny(hf.RadioConfig, video_temporal_patch_size=2, max_img_size=56),
            vision_hidden_size=32,
            projector_hidden_size=32,
            image_token_id=100,
            video_token_id=101,
            force_image_size=28,
        ),
        inputs="hw_grid",
        sets=((0,), (LAYERS - 1,), (1, 2)),
    ),
}
