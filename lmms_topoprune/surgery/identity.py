"""Layers replaced by the identity: what a deletion has to be equal to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from lmms_topoprune.surgery.locate import decoder_layers


@contextlib.contextmanager
def identity_layers(model: PreTrainedModel, layers: Iterable[int]) -> Iterator[None]:
    """While the context is open these decoder layers return their input; nothing is renumbered.

    The layer still runs, so its output has the form that the model expects; only the hidden state is
    replaced.
    Costs a dense forward pass: use delete_layers to save time.
    """
    chosen = decoder_layers(model)
    handles = [chosen[layer].register_forward_hook(_return_input, with_kwargs=True) for layer in set(layers)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _return_input(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    hidden = args[0] if args else kwargs["hidden_states"]
    return (hidden, *output[1:]) if isinstance(output, tuple) else hidden
