"""Hooks that keep one vector per sample and state, and running sums, during a forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cosine_similarity

from lmms_topoprune.calibration.decoder import Decoder
from lmms_topoprune.calibration.tokens import Tokens
from lmms_topoprune.errors import InputError


def token_cosine(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    return cosine_similarity(before, after, dim=-1)


def relative_magnitude(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    return (after - before).norm(dim=-1) / after.norm(dim=-1)


class Enough(Exception):
    """A recorder has what it wants of a batch; the rest of the forward pass is not needed."""


# Each maps a layer's input and output (B, T, d) to one number a token (B, T).
SUMS = {"token_cosine": token_cosine, "relative_magnitude": relative_magnitude}


def _check_complete(found: Mapping[int, Any], count: int) -> None:
    if missing := set(range(count)) - set(found):
        raise InputError(f"decoder layer {min(missing)} did not run on a calibration sample")


class Recorder:
    """Listens to a decoder.

    Args:
        decoder: whose layers to listen to.
        states: "residual" and/or "norm".
        sums: names out of SUMS.
    """

    def __init__(self, decoder: Decoder, states: tuple[str, ...], sums: tuple[str, ...]) -> None:
        self.decoder, self.states, self.sums = decoder, states, sums
        self.layers = len(decoder.layers)
        self.totals = {name: np.zeros(self.layers) for name in sums}
        self.tokens_seen = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hooks are in place inside, and gone after, whatever happens."""
        hooks = []
        try:
            for i, layer in enumerate(self.decoder.layers):
                hooks.append(layer.register_forward_hook(self._layer_hook(i), with_kwargs=True))
            if "norm" in self.states:
                for i, norm in enumerate(self.decoder.norms()):
                    hooks.append(norm.register_forward_hook(self._norm_hook(i)))
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def start(self, tokens: Tokens) -> None:
        """Forget an unfinished batch and expect one with these tokens."""
        self._tokens = tokens
        self._fitted: Tokens | None = None
        self._vectors: dict[str, dict[int, torch.Tensor]] = {name: {} for name in self.states}
        self._sums: dict[str, dict[int, torch.Tensor]] = {name: {} for name in self.sums}

    def finish(self) -> dict[str, list[torch.Tensor]]:
        """The batch's vectors on the CPU, L + 1 of (B, d); its sums are added to the totals."""
        found = {}
        for name, vectors in self._vectors.items():
            _check_complete(vectors, self.layers + 1)
            found[name] = [vectors.pop(i).cpu() for i in range(self.layers + 1)]
        for name, sums in self._sums.items():
            _check_complete(sums, self.layers)
            self.totals[name] += [sums[i].item() for i in range(self.layers)]
        if self._fitted is not None:
            self.tokens_seen += int(self._fitted.mask.sum())
        return found

    def means(self) -> dict[str, np.ndarray]:
        """The running sums divided by the number of tokens, each (L,)."""
        return {name: total / max(self.tokens_seen, 1) for name, total in self.totals.items()}

    def _fit(self, hidden: torch.Tensor) -> Tokens:
        if self._fitted is None or self._fitted.mask.device != hidden.device:
            self._fitted = self._tokens.fitted(hidden)
        return self._fitted

    def _layer_hook(self, i: int) -> Any:
        def hook(_: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            before = self.decoder.hidden(args[0] if args else kwargs["hidden_states"])
            after = self.decoder.hidden(output)
            if "residual" in self.states:
                self._vectors["residual"][i] = self._fit(before).vectors(before)
                if i == self.layers - 1:
                    self._vectors["residual"][i + 1] = self._fit(after).vectors(after)
            for name in self.sums:
                each = SUMS[name](before.to(after.device).float(), after.float())
                self._sums[name][i] = each[self._fit(after).mask].double().sum()

        return hook

    def _norm_hook(self, i: int) -> Any:
        def hook(_: nn.Module, args: Any, output: Any) -> None:
            hidden = self.decoder.hidden(output)
            self._vectors["norm"][i] = self._fit(hidden).vectors(hidden)

        return hook
