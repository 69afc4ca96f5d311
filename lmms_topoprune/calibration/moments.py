"""Running sums around a cut, from one pass in which the repaired model runs in lock step with the dense one.

No sequence is stored: of each batch only sums over its tokens are kept. Padding never enters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lmms_topoprune.calibration.decoder import Decoder
from lmms_topoprune.calibration.recorder import Enough
from lmms_topoprune.calibration.tokens import Tokens
from lmms_topoprune.surgery.projection import Projection
from lmms_topoprune.surgery.repair import swapped


@dataclass(frozen=True)
class Moments:
    """Sums over tokens; M is what the projection before the cut adds, D what the deleted block would add.

    Attributes:
        before, after: sums of |hidden states| (d,) before the cut (repaired model) and behind it (dense).
        change: sum of |D|^2.
        gram, cross: M'M and M'D (d, d); None where no projection was given.
    """

    before: torch.Tensor
    after: torch.Tensor
    change: torch.Tensor
    gram: torch.Tensor | None = None
    cross: torch.Tensor | None = None

    def __add__(self, other: Moments) -> Moments:
        mine, others = self._given(), other._given()
        return Moments(**{name: value + others[name] for name, value in mine.items()})

    def on_cpu(self) -> Moments:
        return Moments(**{name: value.cpu() for name, value in self._given().items()})

    def _given(self) -> dict[str, torch.Tensor]:
        return {name: value for name, value in vars(self).items() if value is not None}


class LockStep:
    """Listens to the dense model and carries the hidden states of the pruned and so far repaired one along.

    Args:
        decoder: of the dense model.
        block: the deleted layers whose cut the sums are about.
        dropped: all deleted layers.
        weights: new weights of the layers before the cut, as repaired so far.
        projection: the one before the cut; None for the sums of |hidden states| alone.
    """

    def __init__(
        self,
        decoder: Decoder,
        block: range,
        dropped: frozenset[int],
        weights: Mapping[nn.Module, Mapping[str, nn.Parameter]],
        projection: Projection | None = None,
    ) -> None:
        self.decoder, self.block, self.dropped = decoder, block, dropped
        self.weights, self.projection = weights, projection
        self.total: Moments | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hooks are in place inside, and gone after, whatever happens."""
        hooks = [
            layer.register_forward_hook(self._layer_hook(number), with_kwargs=True)
            for number, layer in enumerate(self.decoder.layers[: self.block.stop])
        ]
        if self.projection is not None:
            hooks.append(self.projection.module.register_forward_hook(self._projection_hook))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def start(self, tokens: Tokens) -> None:
        """Forget an unfinished batch and expect one with these tokens."""
        self._tokens = tokens
        self._pruned: torch.Tensor | None = None  # None while the two models agree
        self._found: Moments | None = None

    def finish(self) -> dict[str, torch.Tensor]:
        """Add the batch's sums to the total."""
        if self._found is not None:
            self.total = self._found if self.total is None else self.total + self._found
        return {}

    def _layer_hook(self, number: int) -> Any:
        def hook(layer: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            modules = set(layer.modules())
            weights = {module: new for module, new in self.weights.items() if module in modules}
            if self._pruned is None and (weights or number in self.dropped):
                self._pruned = args[0] if args else kwargs["hidden_states"]
            if self._pruned is not None and number not in self.dropped:
                with swapped(weights):
                    self._pruned = _first(rerun(layer, self._pruned, args, kwargs))
            if number == self.block.stop - 1:
                self._found = self._sums(self.decoder.hidden(self._pruned), self.decoder.hidden(output))
                raise Enough

        return hook

    def _projection_hook(self, _: nn.Module, args: Any, output: torch.Tensor) -> None:
        self._added = output  # of the pruned model, which runs after the dense one

    def _sums(self, before: torch.Tensor, after: torch.Tensor) -> Moments:
        mask = self._tokens.fitted(before).mask
        added = None if self.projection is None else self._added.reshape(before.shape)[mask]
        before, after = exact(before[mask]), exact(after.to(before.device)[mask])
        missing = after - before
        sums = Moments(before.abs().sum(0), after.abs().sum(0), missing.square().sum())
        if self.projection is None or added is None:
            return sums
        added = exact(added) * self.projection.factor
        return Moments(sums.before, sums.after, sums.change, added.T @ added, added.T @ missing)


def rerun(layer: nn.Module, hidden: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A layer's output for other hidden states than it was called with; its own hooks stay silent."""
    if args:
        return layer.forward(hidden, *args[1:], **kwargs)
    return layer.forward(**{**kwargs, "hidden_states": hidden})


def exact(values: torch.Tensor) -> torch.Tensor:
    """In float64, which Apple's GPUs do not have."""
    return (values.cpu() if values.device.type == "mps" else values).double()


def _first(output: Any) -> torch.Tensor:
    return output[0] if isinstance(output, (tuple, list)) else output
