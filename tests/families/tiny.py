"""Shrink any configuration class of transformers to a model that runs in milliseconds, and its tokenizer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedConfig, PreTrainedTokenizerFast

LAYERS = 6

_WIDTHS: dict[str, Any] = {
    **dict.fromkeys(
        ("hidden_size", "d_model", "embed_dim", "embedding_size", "out_hidden_size", "projector_dim"), 32
    ),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "d_ff"), 48),
    **dict.fromkeys(("num_attention_heads", "num_heads", "attention_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "kv_heads"), 2),
    **dict.fromkeys(("head_dim", "d_kv", "global_head_dim", "query_pre_attn_scalar"), 8),
    **dict.fromkeys(("moe_intermediate_size", "intermediate_size_mlp"), 16),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "moe_num_shared_experts", "top_k_experts"), 2),
    "max_position_embeddings": 256,
    "sliding_window": 4,
    "vocab_size": 128,
    "image_size": 28,
    "patch_size": 14,
    "projection_dim": 32,
}
_DECODER = ("num_hidden_layers", "layers", "decoder_layers", "num_layers", "num_decoder_layers", "n_layer")
_ENCODER = ("num_hidden_layers", "layers", "encoder_layers", "depth", "num_layers")
_VOCABULARY = 128


def tiny(kind: type[PreTrainedConfig], *, layers: int = 2, **given: Any) -> PreTrainedConfig:
    """A small configuration of a class, its sections included; `given` wins over the small values."""
    known = vars(kind())
    values: dict[str, Any] = {key: value for key, value in _WIDTHS.items() if known.get(key) is not None}
    values |= {key: layers for key in _DECODER + _ENCODER if key in known}
    values |= _token_ids(known)
    for key in kind.sub_configs:
        if key not in given and isinstance(known.get(key), PreTrainedConfig):
            values[key] = tiny(type(known[key]), layers=_layers_of(key))
    return kind(**{**values, **given})


def _layers_of(section: str) -> int:
    return LAYERS if section == "text_config" else 2


def _token_ids(known: dict[str, Any]) -> dict[str, int]:
    """Special tokens inside the small vocabulary; 1 to 99 are left to text, 0 pads, 127 ends."""
    special = [key for key in known if key.endswith(("_token_id", "_token_index"))]
    ids = {key: 100 + number for number, key in enumerate(special)}
    return ids | {key: token for key, token in (("pad_token_id", 0), ("bos_token_id", 1)) if key in ids}


PAD, END, BEGIN = "<pad>", "</s>", "<s>"
TURNS = (
    "{% for message in messages %}{{ message['role'] }}: "
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}\n{% endfor %}assistant:"
)


def tokenizer(
    *special: str, image: str = "", named: dict[str, str] | None = None, whole: Sequence[str] = ()
) -> PreTrainedTokenizerFast:
    """One token a byte, and the special ones; the chat template writes `image` for an image.

    With `whole`, tokens that are words of the vocabulary, a space comes before every text, as with Llama's.
    """
    names = [PAD, END, BEGIN, *special, *whole]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*names, *alphabet])}
    backend = Tokenizer(models.BPE(vocabulary, [], ignore_merges=True))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not whole)
    if whole:
        words = Regex("|".join(map(re.escape, whole)))
        backend.normalizer = normalizers.Prepend(" ")
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(words, "isolated"), backend.pre_tokenizer]
        )
    backend.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
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


def text(kind: type, words: PreTrainedTokenizerFast, **given: Any) -> Any:
    """The configuration of a decoder for that tokenizer."""
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
