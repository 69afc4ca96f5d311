"""Where a model keeps its decoder layers, and which configuration describes them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from lmms_topoprune.errors import SurgeryError


@contextlib.contextmanager
def identity_layers(model: PreTrainedModel, layers: Iterable[int]) -> Iterator[None]:
    """While the context is open these decoder layers return their input; nothing is renumbered.

    The layer still runs, so its output has the form that the model expects; only the hidden state is
    replaced.
    Costs a dense forward pass: use delete_layers to save time.
    """
    chosen = decoder_layers(model)
    handles = [chosen[layer].register_forward_hook(_input_instead, with_kwargs=True) for layer in set(layers)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _input_instead(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    return input_like(output, args, kwargs)


def input_like(output: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A layer's input in the form of its output."""
    hidden = args[0] if args else kwargs["hidden_states"]
    return (hidden, *output[1:]) if isinstance(output, tuple) else hidden


# Parts that are not the decoder, in models whose get_decoder() returns the whole model.
_OTHER_PARTS = re.compile(
    r"vis|image|audio|speech|sound|projector|connector|qformer|perceiver|resampler|tower"
)
# Not the decoder either, if there is another list: GIT keeps its decoder's layers in `encoder`.
_ENCODER = re.compile(r"encoder")
_TYPES = ("layers_block_type", "layer_types")  # where there is no count beside them
_COUNT = re.compile(r"layers?$|^n_layer|^depth$")


@dataclass(frozen=True)
class DecoderLocation:
    """The decoder of a model.

    Attributes:
        path: name of the layer list in the model, such as "model.language_model.layers".
        layers: that list, N modules.
        config: the configuration object that describes it.
        sections: keys that lead from the model's configuration to that object; empty for itself.
        counts: fields of it that may hold N (or a list of N entries), the likeliest first.
    """

    path: str
    layers: nn.ModuleList
    config: PreTrainedConfig
    sections: tuple[str, ...]
    counts: tuple[str, ...]


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The list of decoder layers of the language part.

    Raises:
        SurgeryError: no such list, or its length disagrees with every configuration of the model.
    """
    return locate(model).layers


def layer_sizes(model: PreTrainedModel) -> tuple[list[int], int]:
    """Parameters of each decoder layer, and of the whole model; those of four bits are counted one by one."""

    def size(module: nn.Module) -> int:
        return sum(p.numel() * (2 if type(p).__name__ == "Params4bit" else 1) for p in module.parameters())

    return [size(layer) for layer in decoder_layers(model)], size(model)


def layers_path(model: PreTrainedModel) -> str:
    """The name of the decoder's layer list, such as "model.language_model.layers"."""
    return locate(model).path


def text_config(model: PreTrainedModel) -> PreTrainedConfig:
    """The configuration object that describes the decoder (the model's own, not a copy)."""
    return locate(model).config


def locate(model: PreTrainedModel) -> DecoderLocation:
    """Find the decoder and its configuration by structure.

    The decoder is the shallowest list of layers below `model.get_decoder()` whose length a
    configuration of the model confirms.

    Raises:
        SurgeryError: it is no model of transformers, or no list has such a length.
    """
    if not isinstance(model, PreTrainedModel):
        raise SurgeryError(f"model is a {type(model).__name__}; allowed: a PreTrainedModel of transformers")
    lists = list(_layer_lists(model))
    for path, owner, layers in lists:
        for sections, config in _configs_of(model, owner):
            if counts := _counts(config, len(layers)):
                return DecoderLocation(path, layers, config, sections, counts)
    found = (
        ", ".join(f"{path} has {len(layers)}" for path, _, layers in lists) or "no list of layers was found"
    )
    raise SurgeryError(
        f"the decoder of {type(model).__name__} is unknown: {found}, which no configuration says"
    )


def _layer_lists(model: PreTrainedModel) -> Iterator[tuple[str, nn.Module, nn.ModuleList]]:
    """Candidates as (path, owner, list), the shallowest and then the longest first, encoders last."""
    decoder = _decoder(model)
    prefix = next((name for name, module in model.named_modules() if module is decoder), "")
    found = []
    for name, owner in decoder.named_modules():
        for key, child in owner.named_children():
            inside = f"{name}.{key}"
            if isinstance(child, nn.ModuleList) and len(child) and not _OTHER_PARTS.search(inside):
                path = ".".join(part for part in (prefix, name, key) if part)
                found.append((path, owner, child, bool(_ENCODER.search(inside))))
    found.sort(key=lambda item: (item[3], item[0].count("."), -len(item[2])))
    return ((path, owner, child) for path, owner, child, _ in found)


def _decoder(model: PreTrainedModel) -> nn.Module:
    try:
        decoder = model.get_decoder()  # type: ignore[no-untyped-call]
    except (AttributeError, NotImplementedError):
        return model
    # A text-to-text decoder inside (T5, BART) is reached by asking again.
    while isinstance(decoder, PreTrainedModel) and decoder is not model:
        inner = decoder.get_decoder()  # type: ignore[no-untyped-call]
        if not isinstance(inner, nn.Module) or inner is decoder:
            break
        model, decoder = decoder, inner
    return decoder if isinstance(decoder, nn.Module) else model


def _configs_of(
    model: PreTrainedModel, owner: nn.Module
) -> Iterator[tuple[tuple[str, ...], PreTrainedConfig]]:
    """Sections of the configuration that may describe `owner`: its own, its copies, the text section."""
    own = getattr(owner, "config", None)
    tree = list(walk_configs(model.config))
    yield from (item for item in tree if item[1] is own)
    yield from (item for item in tree if type(item[1]) is type(own) and item[1] is not own)
    text = model.config.get_text_config(decoder=True)
    yield from (item for item in tree if item[1] is text)


def walk_configs(
    config: PreTrainedConfig, sections: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], PreTrainedConfig]]:
    """A configuration and all nested in it, with the keys that lead there."""
    yield sections, config
    for key, value in vars(config).items():
        if isinstance(value, PreTrainedConfig):
            yield from walk_configs(value, (*sections, key))


def count_of(config: PreTrainedConfig, key: str) -> int | None:
    """The number of layers that a field tells: a number, or the length of a list (Nemotron H)."""
    value = getattr(config, key, None)
    return len(value) if isinstance(value, list | tuple) else value


def _counts(config: PreTrainedConfig, layers: int) -> tuple[str, ...]:
    """Fields of `config` equal to `layers` that may count decoder layers."""

    def is_count(key: str, value: Any) -> bool:
        return type(value) is int and value == layers and _COUNT.search(key) is not None

    keys = [key for key, value in vars(config).items() if is_count(key, value)]
    # Text-to-text models count the encoder's layers too; "the last k" is no count of all layers.
    keys = [key for key in keys if "encoder" not in key.replace("decoder", "") and "shared" not in key]
    keys = keys or [key for key in _TYPES if key in vars(config) and count_of(config, key) == layers]
    return tuple(sorted(keys, key=lambda key: ("decoder" not in key, key != "num_hidden_layers", key)))
