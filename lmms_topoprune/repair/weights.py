"""New weights for the layers around a cut, so that less of the deleted block is missed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from lmms_topoprune.errors import SurgeryError

NewWeights = dict[nn.Module, dict[str, nn.Parameter]]
"""New parameters by module and name."""


def linear_map(gram: torch.Tensor, cross: torch.Tensor, ridge: float) -> torch.Tensor:
    """T (d, d) that minimizes |M T - (M + D)|^2 + ridge * mean(diag(M'M)) |T - 1|^2.

    M (tokens, d) is what the projection before the cut adds, D (tokens, d) what the deleted block would
    have added. The ridge term pulls towards the identity, which is a deletion without repair.

    Args:
        gram: M'M (d, d), float64.
        cross: M'D (d, d), float64.
        ridge: at least 0.

    Raises:
        SurgeryError: the sums are not finite, or M has too few independent directions and ridge is 0.
    """
    one = torch.eye(len(gram), dtype=gram.dtype)
    try:
        found = one + torch.linalg.solve(gram + ridge * gram.diagonal().mean() * one, cross)
    except torch.linalg.LinAlgError:
        found = torch.full_like(gram, torch.nan)
    if not found.isfinite().all():
        raise SurgeryError("the repair cannot be solved for; give more calibration samples or a larger ridge")
    return found


def missed(gram: torch.Tensor, cross: torch.Tensor, change: float, found: torch.Tensor) -> float:
    """The share of |D|^2 that is left behind the repair, on the tokens it was fitted to; 1 without repair."""
    step = found - torch.eye(len(gram), dtype=gram.dtype)
    left = change - 2 * (step * cross).sum() + (step * (gram @ step)).sum()
    return float(left) / change if change else 0.0


def magnitude(before: torch.Tensor, after: torch.Tensor) -> float:
    """How much longer the hidden states get over a cut.

    The mean over channels of mean |after| / mean |before|.

    Args:
        before, after: sums of absolute values (d,) over the same tokens, float64.

    Raises:
        SurgeryError: the states are zero or not finite.
    """
    alive = before > 0
    found = float((after[alive] / before[alive]).mean()) if alive.any() else 1.0
    if not 0 < found < float("inf"):
        raise SurgeryError("the hidden states around the cut are zero or not finite")
    return found


def mapped(module: nn.Linear, found: torch.Tensor) -> dict[str, nn.Parameter]:
    """Parameters with which a linear map gives y T instead of y."""
    return _new(module, lambda value: found.T @ value)


def divided(module: nn.Linear, factor: float) -> dict[str, nn.Parameter]:
    """Parameters with which a linear map gives y / factor instead of y."""
    return _new(module, lambda value: value / factor)


def _new(module: nn.Linear, change: Any) -> dict[str, nn.Parameter]:
    """Computed in float64 on the CPU, so that the result does not depend on the device."""
    made = {}
    for name in ("weight", "bias"):
        old = getattr(module, name)
        if old is not None:
            value = change(old.detach().cpu().double()).to(old)
            made[name] = nn.Parameter(value, requires_grad=old.requires_grad)
    return made


@contextmanager
def doubled_input(layer: nn.Module) -> Iterator[None]:
    """A layer gets hidden states twice as long inside."""

    def double(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (2 * args[0], *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": 2 * kwargs["hidden_states"]}

    hook = layer.register_forward_pre_hook(double, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()
