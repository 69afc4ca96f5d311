"""Which tokens of a batch stand for its samples."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

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
