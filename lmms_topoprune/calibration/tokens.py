"""Which tokens of a batch stand for its samples or for images, and which of them make a cloud of points."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lmms_topoprune.calibration.samples import Sample
from lmms_topoprune.errors import InputError


class Misaligned(Exception):
    """The decoder saw another sequence length than the input ids have, so padding cannot be found."""


@dataclass(frozen=True)
class Tokens:
    """Masks over a batch's tokens.

    Attributes:
        mask: bool (B, T), the tokens that are not padding.
        image: bool (B, T), the tokens that stand for image features; None if nothing tells them.
        special: bool (B, T), tokens that are no text, such as begin-of-text; None if nothing tells them.
    """

    mask: torch.Tensor
    image: torch.Tensor | None
    special: torch.Tensor | None = None

    @classmethod
    def of(cls, inputs: Any, image_ids: set[int], special_ids: Collection[int] = ()) -> Tokens:
        ids = inputs["input_ids"]
        mask = inputs.get("attention_mask")
        mask = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()

        def among(wanted: Collection[int]) -> torch.Tensor:
            return torch.isin(ids, torch.tensor(sorted(wanted), dtype=ids.dtype, device=ids.device))

        return cls(mask, among(image_ids) & mask, among(special_ids))

    def fitted(self, hidden: torch.Tensor) -> Tokens:
        """These masks for hidden states (B, T, d), on their device.

        A model that expands images by itself makes the sequence longer than its ids. One sample
        alone has no padding, so only the place of the image is unknown then.

        Raises:
            Misaligned: there are several samples, and their length is another than these masks have.
        """
        batch, length = hidden.shape[:2]
        if tuple(self.mask.shape) == (batch, length):
            marks = (None if m is None else m.to(hidden.device) for m in (self.image, self.special))
            return Tokens(self.mask.to(hidden.device), *marks)
        if batch > 1 or self.mask.shape[0] != batch:
            raise Misaligned
        return Tokens(torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device), None)

    def vectors(self, hidden: torch.Tensor, token: str) -> torch.Tensor:
        """One vector a sample (B, d): of its last token, or the mean over the wanted ones.

        Args:
            hidden: (B, T, d).
            token: which tokens stand for a sample, one of PruningOptions.token.

        Raises:
            InputError: a sample has no such token, or nobody knows which they are.
        """
        if token in ("last", "ret"):
            return hidden[self._last]
        wanted = self._wanted(token).float()
        total = torch.bmm(wanted[:, None], hidden.float())[:, 0]
        return (total / wanted.sum(1, keepdim=True)).to(hidden.dtype)

    @cached_property
    def _last(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Row and place of every sample's last token, each (B,)."""
        rows, length = self.mask.shape
        place = length - 1 - self.mask.flip(1).int().argmax(1)
        return torch.arange(rows, device=place.device), place

    def _wanted(self, token: str) -> torch.Tensor:
        if token == "mean":
            return self.mask
        if self.image is None:
            raise InputError(
                f"token is {token!r}, but this model expands images inside, so that image and text "
                "tokens cannot be told apart; allowed for this model: last, ret, mean"
            )
        wanted = self.image if token == "mean_image" else self.mask & ~self.image
        if not wanted.any(1).all():
            raise InputError(f"token is {token!r}, but a calibration sample has no such token")
        return wanted


SINKS = 4
"""Positions at the beginning of a sequence that are never points."""


@dataclass(frozen=True)
class Points:
    """Tokens that are candidates for points, or points.

    Attributes:
        sample: (P,) number of the calibration sample.
        position: (P,) position in its sequence, padding not counted.
        image: (P,) whether it stands for image features.
        rank: (P,) the random number that decides.
    """

    sample: NDArray[np.int64]
    position: NDArray[np.int64]
    image: NDArray[np.bool_]
    rank: NDArray[np.float64]

    @classmethod
    def none(cls) -> Points:
        whole = np.zeros(0, np.int64)
        return cls(whole, whole, np.zeros(0, np.bool_), np.zeros(0))

    def __len__(self) -> int:
        return len(self.sample)

    def __getitem__(self, chosen: NDArray[np.int64] | NDArray[np.bool_]) -> Points:
        return Points(self.sample[chosen], self.position[chosen], self.image[chosen], self.rank[chosen])

    def __add__(self, other: Points) -> Points:
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Points(*(np.concatenate(pair) for pair in pairs))

    def order(self) -> NDArray[np.int64]:
        """(P,): by sample and position."""
        return np.lexsort((self.position, self.sample))


@dataclass(frozen=True)
class Draw:
    """How points are drawn.

    Attributes:
        count: how many points.
        image_share: the share of image tokens among them.
        seed: decides which.
    """

    count: int
    image_share: float
    seed: int

    def lowest(self, candidates: Points) -> NDArray[np.int64]:
        """The places of the points among these candidates, lowest number first.

        What is left out of some candidates is left out of more of them too, so points can be drawn batch
        by batch.
        """
        by_rank = np.argsort(candidates.rank, kind="stable")
        image, text = (by_rank[candidates.image[by_rank] == kind] for kind in (True, False))
        images = min(len(image), max(round(self.count * self.image_share), self.count - len(text)))
        return np.concatenate([image[:images], text[: self.count - images]])

    def ranks(self, sample: int, length: int) -> NDArray[np.float64]:
        """(length,): the numbers of a sample's tokens."""
        return np.random.default_rng([self.seed, sample]).random(length)


def content(
    tokens: Tokens, row: int, span: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Of a sample's tokens: their places in its padded row, which carry content, which are image tokens.

    Args:
        tokens: of the batch, fitted to the hidden states.
        row: of the sample in the batch.
        span: how many tokens its instruction has, and how many of the prompt follow it.
    """
    real = tokens.mask[row].nonzero()[:, 0].cpu().numpy()
    seen, special = (
        np.zeros(len(real), bool) if marks is None else marks[row].cpu().numpy()[real]
        for marks in (tokens.image, tokens.special)
    )
    instruction, behind = span
    text = np.zeros(len(real), bool)
    text[max(0, len(real) - behind - instruction) : max(0, len(real) - behind)] = True
    wanted = (seen | (text & ~special)) & (np.arange(len(real)) >= SINKS)
    return real, wanted, seen


class Entry(NamedTuple):
    """Where a batch's points are, each (P,): row and place in the batch, and slot in the cloud."""

    row: torch.Tensor
    place: torch.Tensor
    slot: torch.Tensor


class Cloud:
    """The points among the tokens seen so far, and the slots (0..count - 1) in which their vectors are.

    Args:
        draw: how they are drawn.
        spans: of each sample in the order of the pass, as for `content`.
        numbers: of each sample in the whole calibration set; processes share it.
    """

    def __init__(self, draw: Draw, spans: Sequence[tuple[int, int]], numbers: Sequence[int]) -> None:
        self.draw, self.spans, self.numbers = draw, spans, numbers
        self.points, self.slots = Points.none(), np.zeros(0, np.int64)

    def enter(self, tokens: Tokens, indices: Sequence[int]) -> Entry:
        """The points among a batch's tokens.

        Nothing is remembered before `commit`: a batch that failed is seen again, whole or in parts, and
        overwrites only what all of it replaces.
        """
        rows: list[NDArray[np.int64]] = []
        places: list[NDArray[np.int64]] = []
        found = Points.none()
        for row, index in enumerate(indices):
            real, wanted, seen = content(tokens, row, self.spans[index])
            number, positions = self.numbers[index], np.flatnonzero(wanted)
            ranks = self.draw.ranks(number, len(real))[positions]
            found += Points(np.full(len(positions), number), positions, seen[wanted], ranks)
            rows.append(np.full(len(positions), row))
            places.append(real[wanted])
        kept = self.draw.lowest(self.points + found)
        old, new = kept[kept < len(self.points)], kept[kept >= len(self.points)] - len(self.points)
        free = np.setdiff1d(np.arange(self.draw.count), self.slots[old])[: len(new)]
        self._next = (self.points[old] + found[new], np.concatenate([self.slots[old], free]))
        chosen = (np.concatenate(rows)[new], np.concatenate(places)[new], free)
        return Entry(*(torch.from_numpy(each) for each in chosen))

    def commit(self) -> None:
        """The batch went through."""
        self.points, self.slots = self._next

    def in_order(self) -> tuple[Points, NDArray[np.int64]]:
        """The points by sample and position, and their slots."""
        order = self.points.order()
        return self.points[order], self.slots[order]


IDS = ("image_token_id", "image_token_index", "video_token_id", "video_token_index")
# Mllama and Idefics 1 name the decoder layers here that read images by cross attention.
CROSS_ATTENTION = ("cross_attention_layers", "cross_layer_interval")


def image_token_ids(model: nn.Module, processor: Any) -> set[int]:
    """The ids that stand for image or video features in the input ids.

    The configuration decides: the model looks for these ids. A processor may mean another one by the
    same name (Gemma 3's is the begin-of-image mark), so it is asked only where the configuration is silent.
    Under cross attention no token holds features, and the mark in the prompt is text like any other.
    """
    if _cross_attention(model):
        return set()
    for owner in (getattr(model, "config", None), processor):
        if found := {v for n in IDS if isinstance(v := getattr(owner, n, None), int)}:
            return found
    return set()


def check_tokens(model: nn.Module, samples: Sequence[Sample], tokens: Collection[str]) -> None:
    """Refuse, before anything is computed, what this family cannot give.

    Raises:
        InputError: there are no image tokens, or a sample lacks the image that the model needs.
    """
    crossing = _cross_attention(model)
    if "mean_image" in tokens and crossing:
        raise InputError(
            "token is 'mean_image', but this model reads images by cross attention, so that no token stands "
            "for an image; allowed for this model: last, ret, mean, mean_text"
        )
    bare = next((i for i, s in enumerate(samples) if s.image is None), None)
    if bare is not None and (crossing or _needs_pixels(model)):
        reason = "skips its cross-attention layers" if crossing else "does not run"
        raise InputError(
            f"calibration sample {bare} has no image, but {type(model).__name__} {reason} without one; "
            "allowed for this model: samples with an image"
        )


def _cross_attention(model: nn.Module) -> bool:
    config: Any = getattr(model, "config", None)
    find = getattr(config, "get_text_config", None)
    text = find() if find else config
    return any(getattr(text, name, None) for name in CROSS_ATTENTION)


def _needs_pixels(model: nn.Module) -> bool:
    pixels = inspect.signature(model.forward).parameters.get("pixel_values")
    return pixels is not None and pixels.default is pixels.empty
