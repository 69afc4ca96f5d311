"""Where in a decoder the states are read, whatever the family calls its parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from lmms_topoprune.calibration.tokens import Tokens
from lmms_topoprune.errors import InputError
from lmms_topoprune.surgery import decoder_layers


class StopForward(Exception):
    """A listener has what it wants of a batch; the rest of the forward pass is not needed."""


class Listener(Protocol):
    """Hears every batch of a pass; its hooks may raise StopForward."""

    def listening(self) -> AbstractContextManager[None]:
        """Hooks are in place inside, and gone after."""

    def start(self, tokens: Tokens, indices: Sequence[int]) -> None:
        """Forget an unfinished batch and expect the samples `indices`, which have these tokens."""

    def finish(self) -> None:
        """The batch went through."""


@contextmanager
def hooked(hooks: Iterable[RemovableHandle]) -> Iterator[None]:
    """Hooks that are gone after, whatever happens, also while they are being registered."""
    registered = []
    try:
        for hook in hooks:
            registered.append(hook)
        yield
    finally:
        for hook in registered:
            hook.remove()


# The normalization between attention and feed-forward part, first match wins. Families that also
# normalize what attention returns (Gemma 2 and later, OLMo 2) name the one meant here differently.
NORMS = (
    "pre_feedforward_layernorm",
    "post_attention_layernorm",
    "ffn_norm",
    "final_layer_norm",
    "layernorm2",
    "ln_2",
)
FINAL_NORMS = ("norm", "final_layernorm", "final_layer_norm", "ln_f", "layer_norm")


@dataclass(frozen=True)
class Decoder:
    """The decoder layers of a model and the module that holds them."""

    layers: nn.ModuleList
    parent: nn.Module

    @classmethod
    def of(cls, model: nn.Module, layers: nn.ModuleList) -> Decoder:
        parents = (m for m in model.modules() if any(child is layers for child in m.children()))
        return cls(layers, next(parents))

    def norms(self) -> list[nn.Module]:
        """The norm inside every layer and the final norm, as Gardinazzi et al. read them (L + 1)."""
        found = [self._named(layer, NORMS, f"decoder layer {i}") for i, layer in enumerate(self.layers)]
        return [*found, self.final_norm()]

    def final_norm(self) -> nn.Module:
        """The norm behind the last layer.

        Raises:
            InputError: it has a name that is not known.
        """
        return self._named(self.parent, FINAL_NORMS, "the decoder")

    @staticmethod
    def _named(owner: nn.Module, names: tuple[str, ...], what: str) -> nn.Module:
        for name in names:
            if isinstance(getattr(owner, name, None), nn.Module):
                return getattr(owner, name)
        raise InputError(
            f"state is 'norm', but {what} ({type(owner).__name__}) has none of {', '.join(names)}; "
            "allowed for this family: residual"
        )

    def hidden(self, value: Any) -> torch.Tensor:
        """The hidden states (B, T, d) in what a layer takes or returns."""
        if isinstance(value, (tuple, list)):
            value = value[0]
        if value.dim() == 4:  # Gemma 3n carries several predictions of them, one of which is active
            config = getattr(self.parent, "config", None)
            value = value[getattr(config, "altup_active_idx", 0)]
        return value


def has_norms(model: Any) -> bool:
    """Whether the states "norm" can be read in this family."""
    try:
        Decoder.of(model, decoder_layers(model)).norms()
    except InputError:
        return False
    return True


@contextmanager
def last_logits(model: nn.Module, count: int = 1) -> Iterator[None]:
    """Let the output head see only the last `count` positions: nobody reads the other logits."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    if head is None:
        yield
        return
    hook = head.register_forward_pre_hook(lambda _, args: (args[0][..., -count:, :], *args[1:]))
    try:
        yield
    finally:
        hook.remove()
