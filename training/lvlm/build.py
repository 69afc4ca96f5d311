"""A LLaVA of two trained parts: the embedded vision tower and SmolLM2-135M-Instruct, and a new projector."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import AddedToken
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from lmms_topoprune.embedded import scenes

IMAGE_TOKEN = "<image>"
END = "<|im_end|>"
PAD = "<|endoftext|>"

# SmolLM2's, without its default system prompt. Content is a string on lmms-eval's simple path and a list
# of parts on its chat path.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>\\n' }}"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{{ '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def wording(question: str, answer: str, image: bool) -> tuple[str, str]:
    """Prompt and answer of one exchange, as the chat template words them."""
    start = f"{IMAGE_TOKEN}\n" if image else ""
    return f"<|im_start|>user\n{start}{question}{END}\n<|im_start|>assistant\n", f"{answer}{END}\n"


def build_processor(language: Path, vision: Path) -> LlavaProcessor:
    """SmolLM2's tokenizer with an image token, and the vision tower's image processor.

    Args:
        language: a folder that holds SmolLM2.
        vision: a folder that holds the embedded model.
    """
    # Given here, the side is saved: generation wants it.
    tokenizer = AutoTokenizer.from_pretrained(language, padding_side="left")
    tokenizer.add_special_tokens(
        {
            "additional_special_tokens": [AddedToken(IMAGE_TOKEN, special=True)],
            "pad_token": PAD,
            "eos_token": END,
        }
    )
    tokenizer.image_token = IMAGE_TOKEN
    tokenizer.chat_template = CHAT_TEMPLATE
    return LlavaProcessor(
        image_processor=AutoProcessor.from_pretrained(vision).image_processor,
        tokenizer=tokenizer,
        patch_size=scenes.CELL,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def build_model(
    processor: LlavaProcessor, language: Path, vision: Path, seed: int
) -> LlavaForConditionalGeneration:
    """Both trained parts in one model; the projector is random, the same for the same seed."""
    torch.manual_seed(seed)  # for the image token's embedding too
    tokenizer = processor.tokenizer
    decoder = LlamaForCausalLM.from_pretrained(language, dtype=torch.float32)
    decoder.resize_token_embeddings(len(tokenizer), mean_resizing=True)
    tower = AutoModelForImageTextToText.from_pretrained(vision, dtype=torch.float32)
    config = LlavaConfig(
        vision_config=tower.config.vision_config,
        text_config=decoder.config,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        image_seq_length=scenes.GRID**2,
        vision_feature_layer=-1,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlavaForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(tower.model.vision_tower.state_dict())
    model.model.language_model.load_state_dict(decoder.model.state_dict())
    model.tie_weights()
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model
