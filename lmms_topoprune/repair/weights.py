"""The linear maps through which a layer writes, found by running it, and new weights around a cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lmms_topoprune._util.signals import errors_kept
from lmms_topoprune.calibration.decoder import hooked
from lmms_topoprune.errors import SurgeryError

Run = Callable[[], torch.Tensor]
NewWeights = dict[nn.Module, dict[str, nn.Parameter]]
"""New parameters by module and name."""
_TOLERANCE = 0.01  # half precision rounds a factor such as Granite's


@dataclass(frozen=True)
class Projection:
    """The linear map M whose output a layer adds to the residual stream last.

    Attributes:
        module: the linear map; d outputs.
        factor: what the layer multiplies its output with (Granite's residual multiplier; else 1).
    """

    module: nn.Linear
    factor: float


def last_projection(layer: nn.Module, run: Run) -> Projection:
    """The last linear map that runs in a layer, if the layer's output is linear in what it gives.

    Args:
        layer: a decoder layer.
        run: runs it on hidden states and returns the new ones (..., d).

    Raises:
        SurgeryError: there is no such map (experts), or its output is changed before it is added (a norm
            or a gate behind it).
    """
    ran, hidden = executed(layer, run)
    if not ran:
        raise SurgeryError("no linear map in it gives hidden states")
    module, added = ran[-1]
    check_weight(module)
    if added.numel() != hidden.numel():
        raise SurgeryError("its last linear map runs on a part of the tokens")
    factor = _added_times(module, run)
    if not factor:
        raise SurgeryError("what its last linear map gives is not added to the hidden states as it is")
    return Projection(module, factor)


def _added_times(module: nn.Linear, run: Run) -> float:
    """The number c if a layer's output is (something else) + c * (the module's output); 0 if it is not.

    The gradient tells: it is c times whatever is handed back. Unlike a difference of two outputs it is
    exact in half precision too.
    """
    leaves: list[torch.Tensor] = []

    def cut(_: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
        leaves.append(output.detach().requires_grad_())
        return leaves[-1]

    found = None
    hook = module.register_forward_hook(cut)
    # Where nothing leads back, or an operation has no gradient, torch raises a RuntimeError.
    with errors_kept(RuntimeError), hooked([hook]), torch.enable_grad():
        hidden = run()
        probe = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(0)).to(hidden)
        (found,) = torch.autograd.grad(hidden, leaves[-1:], probe, allow_unused=True)
    if found is None:
        return 0.0
    found, probe = (value.reshape(hidden.shape).cpu().double() for value in (found, probe))
    factor = float((found * probe).sum() / probe.square().sum())
    straight = (found - factor * probe).norm() <= _TOLERANCE * abs(factor) * probe.norm()
    return (1.0 if abs(factor - 1) < _TOLERANCE else factor) if straight else 0.0


def outer_projections(layer: nn.Module, run: Run) -> list[nn.Linear]:
    """The last linear map onto hidden states of each part of a layer: of attention and of feed-forward.

    Raises:
        SurgeryError: there is none, or its weights cannot be scaled.
    """
    found: dict[int, nn.Linear] = {}
    parts = [set(part.modules()) for part in layer.children()]
    for module, _ in executed(layer, run)[0]:
        found.update({number: module for number, part in enumerate(parts) if module in part})
    if not found:
        raise SurgeryError("no linear map in it gives hidden states")
    for module in found.values():
        check_weight(module)
    return list(found.values())


def executed(layer: nn.Module, run: Run) -> tuple[list[tuple[nn.Linear, torch.Tensor]], torch.Tensor]:
    """Linear maps onto hidden states in the order in which they ran, with outputs, and the layer's output.

    Both are (..., d).
    """
    ran: list[tuple[nn.Linear, torch.Tensor]] = []

    def note(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(module, nn.Linear) and torch.is_tensor(output):  # Llama 4's router gives two
            ran.append((module, output))

    linear = [module for module in layer.modules() if isinstance(module, nn.Linear)]
    with hooked(module.register_forward_hook(note) for module in linear):
        hidden = run()
    return [(module, output) for module, output in ran if output.shape[-1] == hidden.shape[-1]], hidden


@contextmanager
def multiplied(modules: list[nn.Linear], factor: float) -> Iterator[None]:
    """The outputs of these modules are multiplied inside."""
    with hooked(m.register_forward_hook(lambda _, args, output: output * factor) for m in modules):
        yield


def check_weight(module: nn.Linear) -> None:
    """Refuse a weight that is no plain matrix in memory.

    Raises:
        SurgeryError: it is quantized or offloaded.
    """
    weight = module.weight
    if not weight.is_floating_point() or weight.shape != (module.out_features, module.in_features):
        raise SurgeryError("its weights are quantized")
    if weight.device.type == "meta":
        raise SurgeryError("its weights are not in memory (offloaded)")


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
