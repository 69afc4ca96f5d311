"""Hooks that keep one vector per sample and state, and sums over tokens, during a forward pass."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cosine_similarity
from torch.utils.hooks import RemovableHandle

from lmms_topoprune.calibration.decoder import Decoder, hooked
from lmms_topoprune.calibration.norms import NormCounts, count_norms, together
from lmms_topoprune.calibration.tokens import Cloud, Draw, Entry, Points, Tokens
from lmms_topoprune.errors import InputError


def token_cosine(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    return cosine_similarity(before, after, dim=-1)


def relative_magnitude(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    return (after - before).norm(dim=-1) / after.norm(dim=-1)


# Each maps a layer's input and output (B, T, d) to one number a token (B, T).
SUMS = {"token_cosine": token_cosine, "relative_magnitude": relative_magnitude}


POINTS = "points"
"""Stands for the token of a view that keeps a cloud of tokens instead of one vector a sample."""


class View(NamedTuple):
    """What is kept of every state.

    Attributes:
        state: "residual" or "norm".
        token: which token stands for a sample; POINTS for a cloud of tokens.
        draw: how the points of a cloud are drawn.
    """

    state: str
    token: str
    draw: Draw | None = None


def _check_complete(found: Collection[int], count: int) -> None:
    if missing := set(range(count)) - set(found):
        raise InputError(f"decoder layer {min(missing)} did not run on a calibration sample")


class Recorder:
    """Listens to a decoder.

    Args:
        decoder: whose layers to listen to.
        views: which states to keep, and of which token each.
        sums: names out of SUMS.
        samples: N, the size of the calibration set.
        spans: of each sample, where its instruction is; for views of clouds.
        numbers: of each sample in the whole calibration set; by default 0 to N - 1.

    Attributes:
        vectors: those of all samples so far, a view -> (L + 1, N, d) on the CPU.
    """

    def __init__(
        self,
        decoder: Decoder,
        views: Iterable[View],
        sums: Iterable[str],
        samples: int,
        spans: Sequence[tuple[int, int]] = (),
        numbers: Sequence[int] | None = None,
    ) -> None:
        self.decoder, self.samples = decoder, samples
        self.views, self.sums = tuple(dict.fromkeys(views)), tuple(dict.fromkeys(sums))
        self.layers = len(decoder.layers)
        self.vectors: dict[View, torch.Tensor] = {}
        self.totals = {name: np.zeros(self.layers) for name in self.sums}
        self.tokens_seen = 0
        self.norms = NormCounts.none(self.layers + 1)
        numbers = range(samples) if numbers is None else numbers
        draws = dict.fromkeys(view.draw for view in self.views if view.draw is not None)
        self.clouds = {draw: Cloud(draw, spans, numbers) for draw in draws}

    def listening(self) -> AbstractContextManager[None]:
        """Hooks are in place inside, and gone after."""
        return hooked(self._hooks())

    def _hooks(self) -> Iterator[RemovableHandle]:
        for i, layer in enumerate(self.decoder.layers):
            yield layer.register_forward_hook(self._layer_hook(i), with_kwargs=True)
        if self._reads("norm"):
            for i, norm in enumerate(self.decoder.norms()):
                yield norm.register_forward_hook(self._norm_hook(i))

    def _reads(self, state: str) -> bool:
        return any(view.state == state for view in self.views)

    def start(self, tokens: Tokens, indices: Sequence[int]) -> None:
        """Forget an unfinished batch and expect the samples `indices`, which have these tokens."""
        self._tokens, self._indices = tokens, torch.tensor(indices)
        self._fitted: Tokens | None = None
        self._entries: dict[Draw, Entry] = {}
        self._norms: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._seen: dict[View, set[int]] = {view: set() for view in self.views}
        self._waiting: list[tuple[View, int, torch.Tensor]] = []
        self._sums: dict[str, dict[int, torch.Tensor]] = {name: {} for name in self.sums}

    def finish(self) -> None:
        """Put away what is still on a device and add the batch's sums to the totals.

        Raises:
            InputError: a layer did not run, or a state is not finite.
        """
        while self._waiting:
            view, i, vectors = self._waiting.pop()
            self._put(view, i, vectors.cpu())
        for view, seen in self._seen.items():
            _check_complete(seen, self.layers + 1)
            self._check_finite(view)
        for name, sums in self._sums.items():
            _check_complete(sums, self.layers)
            self.totals[name] += [sums[i].item() for i in range(self.layers)]
        for draw in self._entries:
            self.clouds[draw].commit()
        if len(self._norms) == self.layers + 1:
            self.norms += together([self._norms[i] for i in range(self.layers + 1)])
        if self._fitted is not None:
            self.tokens_seen += int(self._fitted.mask.sum())

    def means(self) -> dict[str, np.ndarray]:
        """The sums divided by the number of tokens, each (L,)."""
        return {name: total / max(self.tokens_seen, 1) for name, total in self.totals.items()}

    def found(self) -> tuple[dict[View, torch.Tensor], dict[Draw, Points]]:
        """The vectors of every view, and the points of every cloud, by sample and position as its vectors."""
        points: dict[Draw, Points] = {}
        for draw, cloud in self.clouds.items():
            points[draw], slots = cloud.in_order()
            for view in self.vectors:
                if view.draw == draw:
                    self.vectors[view] = self.vectors[view][:, torch.from_numpy(slots)]
        return self.vectors, points

    def _fit(self, hidden: torch.Tensor) -> Tokens:
        if self._fitted is None or self._fitted.mask.device != hidden.device:
            self._fitted = self._tokens.fitted(hidden)
        return self._fitted

    def _take(self, state: str, i: int, hidden: torch.Tensor) -> None:
        """Keep one vector a sample and token of the hidden states (B, T, d) at state i."""
        for view in self.views:
            if view.state != state:
                continue
            vectors = self._chosen(hidden, view)
            self._seen[view].add(i)
            if vectors.device.type == "cpu":
                self._put(view, i, vectors)  # at once: a batch's vectors never take memory of their own
            else:
                self._waiting.append((view, i, vectors))  # so that no layer waits for the one before

    def _chosen(self, hidden: torch.Tensor, view: View) -> torch.Tensor:
        """(B, d): one vector a sample; or (P, d): those of the batch's points."""
        tokens = self._fit(hidden)
        if view.draw is None:
            return tokens.vectors(hidden, view.token)
        if view.draw not in self._entries:
            self._entries[view.draw] = self.clouds[view.draw].enter(tokens, self._indices.tolist())
        entry = self._entries[view.draw]
        return hidden[entry.row.to(hidden.device), entry.place.to(hidden.device)]

    def _slots(self, view: View) -> torch.Tensor:
        return self._indices if view.draw is None else self._entries[view.draw].slot

    def _put(self, view: View, i: int, vectors: torch.Tensor) -> None:
        if view not in self.vectors:
            self.vectors[view] = self._room(view, vectors)
        # Some checkpoints keep a norm in float32 where the rest is not.
        self.vectors[view][i].index_copy_(0, self._slots(view), vectors.to(self.vectors[view].dtype))

    def _room(self, view: View, vectors: torch.Tensor) -> torch.Tensor:
        """Memory for one vector (d,) of every state and sample, or point."""
        name, count = ("samples", self.samples) if view.draw is None else ("point_count", view.draw.count)
        shape = (self.layers + 1, count, vectors.shape[1])
        try:
            return torch.empty(shape, dtype=vectors.dtype)
        except (RuntimeError, MemoryError) as error:  # smaller batches would not help
            size = len(self.views) * math.prod(shape) * vectors.element_size() / 2**20
            raise InputError(
                f"{name} is {count}, and the states of so many take {size:.0f} MB of memory, which "
                "is not there; allowed: fewer"
            ) from error

    def _check_finite(self, view: View) -> None:
        """A single NaN would silently decide every neighbor graph after it."""
        bad = ~torch.isfinite(self.vectors[view][:, self._slots(view)]).all(-1)  # (L + 1, B or P)
        if bad.any():
            layer, place = bad.nonzero()[0].tolist()
            row = place if view.draw is None else int(self._entries[view.draw].row[place])
            sample = int(self._indices[row])
            raise InputError(
                f"the {view.state} state at layer {layer} of calibration sample {sample} is not finite; "
                "the weights are broken, or the precision is too low for this model"
            )

    def _layer_hook(self, i: int) -> Any:
        def hook(_: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            before = self.decoder.hidden(args[0] if args else kwargs["hidden_states"])
            after = self.decoder.hidden(output)
            if self._reads("residual"):
                self._take("residual", i, before)
                if i == self.layers - 1:
                    self._take("residual", i + 1, after)
            mask = self._fit(after).mask
            if i == 0:
                self._norms[0] = count_norms(before, mask.to(before.device))
            self._norms[i + 1] = count_norms(after, mask)
            for name in self.sums:
                each = SUMS[name](before.to(after.device).float(), after.float())
                self._sums[name][i] = each[self._fit(after).mask].double().sum()

        return hook

    def _norm_hook(self, i: int) -> Any:
        def hook(_: nn.Module, args: Any, output: Any) -> None:
            self._take("norm", i, self.decoder.hidden(output))

        return hook
