"""The linear maps through which a layer writes into the residual stream, found by running it."""

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
    hooks = [module.register_forward_hook(note) for module in linear]
    try:
        hidden = run()
    finally:
        for hook in hooks:
            hook.remove()
    return [(module, output) for module, output in ran if output.shape[-1] == hidden.shape[-1]], hidden


@contextmanager
def multiplied(modules: list[nn.Linear], factor: float) -> Iterator[None]:
    """The outputs of these modules are multiplied inside."""
    hooks = [module.register_forward_hook(lambda _, args, output: output * factor) for module in modules]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


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
