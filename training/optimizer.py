"""Optimizers with one schedule for all their parts, and their state as plain tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Schedule:
    """Warm-up, constant rate, linear decay to zero over the last `decay` of `steps` steps."""

    steps: int
    warmup: int
    decay: int

    def __call__(self, step: int) -> float:
        return min(1.0, (step + 1) / self.warmup, (self.steps - step) / self.decay)


class Optimizer:
    """Several optimizers that step together; the rates they come with are their peaks."""

    def __init__(self, parts: list[torch.optim.Optimizer]) -> None:
        self.parts = parts
        self.peaks = [[group["lr"] for group in part.param_groups] for part in parts]
        self.parameters = [p for part in parts for group in part.param_groups for p in group["params"]]

    def step(self, scale: float) -> None:
        """One step at `scale` times the peak rates; gradients are clipped to norm 1 and cleared."""
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for part, peaks in zip(self.parts, self.peaks, strict=True):
            for group, peak in zip(part.param_groups, peaks, strict=True):
                group["lr"] = peak * scale
            part.step()
            part.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, torch.Tensor]:
        """The state as plain tensors, for a safetensors file."""
        return {
            f"{n}.{index}.{key}": value.contiguous()
            for n, part in enumerate(self.parts)
            for index, state in part.state_dict()["state"].items()
            for key, value in state.items()
        }

    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        """The inverse of `tensors`."""
        for n, part in enumerate(self.parts):
            state: dict[int, dict[str, torch.Tensor]] = {}
            for name, value in tensors.items():
                owner, index, key = name.split(".")
                if int(owner) == n:
                    state.setdefault(int(index), {})[key] = value
            part.load_state_dict({"state": state, "param_groups": part.state_dict()["param_groups"]})


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024): momentum whose matrices are made orthogonal before each step.

    torch.optim.Muon computes this in bfloat16 and matrix by matrix, which on processors without bfloat16
    units takes as long as the backward pass; here it is float32, and equal shapes go together.
    """

    def __init__(
        self, params: list[nn.Parameter], lr: float, weight_decay: float, momentum: float = 0.95
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[torch.Tensor]] = {}
            for p in group["params"]:
                by_shape.setdefault(p.shape, []).append(p)
            for alike in by_shape.values():
                updates = []
                for p in alike:
                    assert p.grad is not None, "every matrix takes part in the loss"
                    state = self.state[p]
                    mean = state.setdefault("momentum_buffer", torch.zeros_like(p))
                    mean.lerp_(p.grad, 1 - group["momentum"])
                    updates.append(p.grad.lerp(mean, group["momentum"]))
                rows, columns = alike[0].shape
                rate = group["lr"] * max(1, rows / columns) ** 0.5
                for p, update in zip(alike, orthogonal(torch.stack(updates)), strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-rate)


def orthogonal(matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Float[B, m, n] with all singular values near 1, by Newton-Schulz iterations (Jordan et al. 2024)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if is_tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if is_tall else x


def muon_and_adamw(model: nn.Module, *, muon_lr: float, lr: float, weight_decay: float) -> Optimizer:
    """Muon for the layers' matrices, AdamW for the rest of what is trained."""
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    hidden = [p for n, p in trained if p.ndim == 2 and ".layers." in n]
    taken = {id(p) for p in hidden}
    rest = [p for _, p in trained if id(p) not in taken]
    muon = Muon(hidden, lr=muon_lr, weight_decay=weight_decay)
    return Optimizer([muon, torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.98), weight_decay=0.0)])


def adamw(groups: list[tuple[nn.Module, float]]) -> Optimizer:
    """AdamW without weight decay, with one rate a module."""
    described = [
        {"params": [p for p in module.parameters() if p.requires_grad], "lr": lr} for module, lr in groups
    ]
    return Optimizer([torch.optim.AdamW(described, betas=(0.9, 0.98), weight_decay=0.0, fused=True)])
