"""An untrained embedded model: its tokenizer, its processor and its configuration."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from itertools import islice

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from lmms_topoprune.embedded import scenes
from training.conversations import EARLY, LATE, SUFFIXES, conversation

IMAGE_TOKEN = "<image>"
END = "</s>"
PAD = "<pad>"
EMBEDDING_STD = 0.1

# Content is a string on lmms-eval's simple path and a list of parts on its chat path.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %} ASSISTANT: {% else %}USER: {% endif %}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ '</s>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)


@dataclass(frozen=True)
class Size:
    """Width and depth of the embedded architecture."""

    layers: int = 12
    width: int = 192
    mlp: int = 512
    heads: int = 4
    vision_layers: int = 3
    vision_width: int = 128


def turn(question: str, answer: str | None = None, image: bool = False) -> str:
    """One exchange, worded as the chat template words it."""
    start = f"USER: {IMAGE_TOKEN}\n" if image else "USER: "
    return f"{start}{question} ASSISTANT:" + ("" if answer is None else f" {answer}{END}")


def wording(question: str, answer: str, image: bool) -> tuple[str, str]:
    """Prompt and answer of one exchange, as `training.batches.Batches` takes them."""
    return turn(question, image=image), f" {answer}{END}"


def _corpus(scene_count: int = 3000) -> list[str]:
    rng = random.Random(0)
    texts = [scenes.DESCRIBE, *SUFFIXES.values()] * 50
    for number in range(scene_count):
        scene = scenes.random_scene(rng, "train")
        texts.append(turn(scenes.DESCRIBE, scenes.caption(scene)).replace(END, ""))
        exchanges = islice(conversation(rng, scene, (EARLY, LATE)[number % 2]), 12)
        texts += [turn(*exchange).replace(END, "") for exchange in exchanges]
    return texts


@cache
def _trained_tokenizer(vocab_size: int) -> str:
    """A byte-level BPE as JSON: the questions' words are single tokens, other text falls back to bytes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, END, IMAGE_TOKEN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    return tokenizer.to_str()


def build_tokenizer(vocab_size: int = 512) -> PreTrainedTokenizerFast:
    """The embedded model's tokenizer; training it takes seconds, once a process."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained_tokenizer(vocab_size)),
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[AddedToken(IMAGE_TOKEN, special=True)],
        extra_special_tokens={"image_token": IMAGE_TOKEN},
        model_max_length=512,
        padding_side="left",
        chat_template=CHAT_TEMPLATE,
    )


def build_processor() -> LlavaProcessor:
    side = {"height": scenes.IMAGE_SIZE, "width": scenes.IMAGE_SIZE}
    images = CLIPImageProcessor(size=side, crop_size=side, do_center_crop=False)
    return LlavaProcessor(
        image_processor=images,
        tokenizer=build_tokenizer(),
        patch_size=scenes.CELL,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def build_model(processor: LlavaProcessor, size: Size, seed: int) -> LlavaForConditionalGeneration:
    """The embedded architecture with random weights; the same seed gives the same weights."""
    tokenizer = processor.tokenizer
    vision = CLIPVisionConfig(
        hidden_size=size.vision_width,
        intermediate_size=4 * size.vision_width,
        num_hidden_layers=size.vision_layers,
        num_attention_heads=4,
        image_size=scenes.IMAGE_SIZE,
        patch_size=scenes.CELL,
        projection_dim=size.vision_width,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.width,
        intermediate_size=size.mlp,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        max_position_embeddings=512,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        image_seq_length=scenes.GRID**2,
        vision_feature_layer=-1,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config)
    # Words far enough apart to stay what they are while the decoder learns to tell them; the head is
    # a copy that goes its own way.
    nn.init.normal_(model.get_input_embeddings().weight, std=EMBEDDING_STD)
    model.lm_head.weight.data.copy_(model.get_input_embeddings().weight)
    return model
