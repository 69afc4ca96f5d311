"""Teacher and student from one copy of the weights, and how far apart the two are.

The teacher's next-token distribution is learned (Hinton et al. 2015, arXiv 1503.02531), and its hidden states
behind the cuts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn.functional import kl_div, log_softmax

from lmms_topoprune.calibration.decoder import Decoder
from lmms_topoprune.calibration.loss import IGNORE
from lmms_topoprune.errors import InputError
from lmms_topoprune.surgery import Deletion, decoder_layers


class Switched(Protocol):
    """What is trained on top of the frozen weights."""

    def switch(self, on: bool) -> None:
        """Count for the model's answers, or do not."""


@contextmanager
def dense_again(deletion: Deletion, overlay: Switched) -> Iterator[None]:
    """Inside, the model is the dense one: the deleted layers are back, and nothing that was trained counts.

    No weight is copied or moved. After the block the model is the pruned one again, with what was trained.
    """
    overlay.switch(False)
    try:
        with deletion.undone(), torch.no_grad():
            yield
    finally:
        overlay.switch(True)


@dataclass(frozen=True)
class Outcome:
    """What a model says about one batch.

    Attributes:
        logits: (tokens, vocabulary), where a token of an answer is predicted.
        seams: by the number of the cut, hidden states (tokens that are not padding, d) behind it.
    """

    logits: torch.Tensor
    seams: dict[int, torch.Tensor]


@dataclass(frozen=True)
class Loss:
    """Of one batch: sums over tokens, and how many there were.

    Attributes:
        divergence: sum over the answers' tokens of KL(dense || pruned), in nats.
        answer_tokens: how many these are.
        seam: sum over tokens and cuts of |pruned - dense|^2 / |dense|^2.
        seam_tokens: how many these are.
    """

    divergence: torch.Tensor
    answer_tokens: int
    seam: torch.Tensor
    seam_tokens: int

    def mean(self, seam_weight: float) -> torch.Tensor:
        """What is trained: the mean divergence a token and, weighted, the mean relative square at a seam."""
        seam = self.seam / max(self.seam_tokens, 1)
        return self.divergence / max(self.answer_tokens, 1) + seam_weight * seam


def loss_of(student: Outcome, teacher: Outcome) -> Loss:
    """How far the pruned model's outcome is from the dense one's."""
    divergence = kl_div(
        log_softmax(student.logits.float(), -1),
        log_softmax(teacher.logits.float(), -1),
        reduction="sum",
        log_target=True,
    )
    seam, count = divergence.new_zeros(()), 0
    for number, wanted in teacher.seams.items():
        wanted = wanted.float()
        found = student.seams[number].float().to(wanted.device)
        length = wanted.square().sum(-1).clamp_min(torch.finfo(torch.float32).tiny)
        seam = seam + ((found - wanted).square().sum(-1) / length).sum().to(seam.device)
        count += len(wanted)
    return Loss(divergence, len(teacher.logits), seam, count)


def predicted(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The logits (tokens, V) that predict a label, of logits (B, window, V) and labels (B, window)."""
    wanted = labels[:, 1:].to(logits.device) != IGNORE
    return logits[:, :-1][wanted]


class Seams:
    """Hidden states where the dense model leaves a deleted block: what the next kept layer is given.

    Args:
        decoder: of the pruned model.
        modules: for every cut the module behind it.
    """

    def __init__(self, decoder: Decoder, modules: Sequence[nn.Module]) -> None:
        self.decoder, self.modules = decoder, modules
        self._states: dict[int, torch.Tensor] = {}
        self._open = False

    @classmethod
    def of(cls, deletion: Deletion) -> Seams:
        """Of every cut: the module behind is the next decoder layer that stays, or the final norm."""
        layers = list(decoder_layers(deletion.model))
        decoder = Decoder.of(deletion.model, decoder_layers(deletion.model))
        places = {layer: new for new, layer in enumerate(deletion.kept)}
        found: list[nn.Module] = []
        for behind in (layer + 1 for layer in deletion.dropped):
            if behind in places:
                found.append(layers[places[behind]])
            elif behind == len(deletion.kept) + len(deletion.dropped):
                with suppress(InputError):  # a norm of a name that is not known; the logits are right behind
                    found.append(decoder.final_norm())
        return cls(decoder, found)

    @contextmanager
    def listening(self) -> Iterator[dict[int, torch.Tensor]]:
        """Inside, a forward pass leaves the states (B, T, d) by the number of the cut in what is yielded."""
        self._states, self._open = {}, True
        hooks = [
            module.register_forward_pre_hook(self._hook(number), with_kwargs=True)
            for number, module in enumerate(self.modules)
        ]
        try:
            yield self._states
        finally:
            self._open = False
            for hook in hooks:
                hook.remove()

    def _hook(self, number: int) -> Any:
        def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if self._open:  # a layer that is run again for its gradients is not listened to
                self._states[number] = self.decoder.hidden(args[0] if args else kwargs["hidden_states"])

        return keep
