"""Which tokens of the calibration prompts are the points of a cloud.

A point is a token: the same sample and position at every state. Points are drawn once, uniformly without
replacement among all tokens that carry content:

- text tokens of the instructions (never of the chat template around them, never special tokens), and image
  tokens, which stand for image features;
- never padding, and never the first SINKS positions of a sequence, where attention sinks are.

`image_share` of the points are image tokens and the others text tokens. Where one kind has fewer tokens than
its share, the other kind fills up.

Every token has a number between 0 and 1 that follows from the seed, its sample and its position alone, and the
tokens with the lowest numbers are the points. So the cloud does not depend on batches or processes, and at
most as many vectors as there are points are held at any time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from lmms_topoprune.calibration.tokens import Tokens

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
        return cls(*(np.zeros(0, kind) for kind in (np.int64, np.int64, np.bool_, np.float64)))

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


def content(tokens: Tokens, row: int, spans: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The places of a sample's content tokens in its padded row, and which of them are image tokens.

    Args:
        tokens: of the batch, fitted to the hidden states.
        row: of the sample in the batch.
        spans: how many tokens its instruction has, and how many of the prompt follow it.
    """
    places = tokens.mask[row].nonzero()[:, 0].cpu().numpy()  # (T,) without padding
    seen = np.zeros(len(places), bool)
    if tokens.image is not None:
        seen = tokens.image[row].cpu().numpy()[places]
    special = np.zeros(len(places), bool)
    if tokens.special is not None:
        special = tokens.special[row].cpu().numpy()[places]
    instruction, behind = spans
    text = np.zeros(len(places), bool)
    text[max(0, len(places) - behind - instruction) : max(0, len(places) - behind)] = True
    wanted = (seen | (text & ~special)) & (np.arange(len(places)) >= SINKS)
    return places[wanted], seen[wanted]


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

    def enter(
        self, tokens: Tokens, indices: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The points among a batch's tokens: their rows, places and slots, each (P,).

        Nothing is remembered before `commit`: a batch that failed is seen again, whole or in parts, and
        overwrites only what all of it replaces.
        """
        rows, places, found = [], [], Points.none()
        for row, index in enumerate(indices):
            here, seen = content(tokens, row, self.spans[index])
            real = tokens.mask[row].nonzero()[:, 0].cpu().numpy()
            positions = np.searchsorted(real, here)
            number = self.numbers[index]
            ranks = self.draw.ranks(number, len(real))[positions]
            found += Points(np.full(len(here), number), positions, seen, ranks)
            rows.append(np.full(len(here), row))
            places.append(here)
        everything = self.points + found
        kept = self.draw.lowest(everything)
        old, new = kept[kept < len(self.points)], kept[kept >= len(self.points)] - len(self.points)
        free = np.setdiff1d(np.arange(self.draw.count), self.slots[old])[: len(new)]
        self._next = (self.points[old] + found[new], np.concatenate([self.slots[old], free]))
        row, place = np.concatenate(rows)[new], np.concatenate(places)[new]
        return torch.from_numpy(row), torch.from_numpy(place), torch.from_numpy(free)

    def commit(self) -> None:
        """The batch went through."""
        self.points, self.slots = self._next
