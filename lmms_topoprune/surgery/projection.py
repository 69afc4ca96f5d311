"""The linear maps through which a layer writes into the residual stream, found by running it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lmms_topoprune.errors import SurgeryError

Run = Callable[[], torch.Tensor]
# Large, so that in half precision the sum with a long residual does not swallow what is looked for.
_FACTOR = 16.0
_TOLERANCE = 0.05


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
    """The last linear map that runs in a layer, if scaling it changes the layer's output linearly.

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
    added = added.reshape(hidden.shape).double()
    zero, half, whole = (_scaled(module, run, factor) for factor in (0.0, _FACTOR / 2, _FACTOR))
    change = (whole - zero) / _FACTOR
    factor = float((change * added).sum() / added.square().sum().clamp_min(1e-30))
    if not (factor and _near(change, factor * added) and _near(2 * (half - zero) / _FACTOR, change)):
        raise SurgeryError("what its last linear map gives is not added to the hidden states as it is")
    # Rounding in half precision must not enter; a factor that is not 1 is no near miss.
    return Projection(module, 1.0 if abs(factor - 1) < _TOLERANCE else factor)


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

    def note(module: nn.Module, _: Any, output: torch.Tensor) -> None:
        assert isinstance(module, nn.Linear)
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
    """Refuse a weight that is no plain matrix in memory."""
    weight = module.weight
    if not weight.is_floating_point() or weight.shape != (module.out_features, module.in_features):
        raise SurgeryError("its weights are quantized")
    if weight.device.type == "meta":
        raise SurgeryError("its weights are not in memory (offloaded)")


def _scaled(module: nn.Linear, run: Run, factor: float) -> torch.Tensor:
    with multiplied([module], factor):
        return run().double()


def _near(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    return bool((found - wanted).norm() <= _TOLERANCE * wanted.norm())
