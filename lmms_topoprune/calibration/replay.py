"""Trying many sets of layers on one batch without running again what comes before them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from lmms_topoprune.calibration.decoder import hooked
from lmms_topoprune.surgery.locate import input_like

Forward = Callable[..., Any]


@dataclass(frozen=True)
class Replay:
    """What every decoder layer returned on one batch: L x B x T x d numbers.

    Attributes:
        layers: the decoder layers.
        outputs: what each returned.
    """

    layers: Sequence[nn.Module]
    outputs: Mapping[int, Any]

    @classmethod
    def of(cls, layers: Sequence[nn.Module], run: Callable[[], Any], skipped: Collection[int] = ()) -> Replay:
        """Run the model on the batch, with `skipped` layers replaced by the identity.

        These run too, so that their output has the form that the model expects.
        """
        outputs: dict[int, Any] = {}

        def hook(i: int) -> Any:
            def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
                outputs[i] = input_like(output, args, kwargs) if i in skipped else output
                return outputs[i]

            return keep

        with hooked(layer.register_forward_hook(hook(i), with_kwargs=True) for i, layer in enumerate(layers)):
            run()
        return cls(layers, outputs)

    @contextmanager
    def without(self, layer: int, skipped: Collection[int] = ()) -> Iterator[None]:
        """Inside, layers before `layer` return what they returned; it and later skipped ones, their input."""
        with ExitStack() as stack:
            for i in range(layer):
                stack.enter_context(_forward(self.layers[i], partial(_given, self.outputs[i])))
            for i in {layer, *(i for i in skipped if i > layer)}:
                stack.enter_context(_forward(self.layers[i], partial(_input_as, self.outputs[i])))
            yield

    @contextmanager
    def alone(self, layer: int) -> Iterator[None]:
        """Inside, only this layer runs."""
        with ExitStack() as stack:
            for i, other in enumerate(self.layers):
                if i != layer:
                    stack.enter_context(_forward(other, partial(_given, self.outputs[i])))
            yield


def is_repeatable(layers: Sequence[nn.Module], run: Callable[[], Any]) -> bool:
    """Whether each layer alone does what it does among the others.

    It does not where more than hidden states passes from layer to layer, such as keys and values that
    later layers share.

    Args:
        layers: the decoder layers.
        run: runs the model on one batch.
    """
    first = Replay.of(layers, run)
    for i, layer in enumerate(layers):
        found: list[Any] = []
        hook = layer.register_forward_hook(lambda _module, _args, output: found.append(output))  # noqa: B023
        try:
            with first.alone(i):
                run()
        except Exception:  # whatever a layer raises that misses what another one should have left
            return False
        finally:
            hook.remove()
        if len(found) != 1 or not torch.equal(_hidden(found[0]), _hidden(first.outputs[i])):
            return False
    return True


@contextmanager
def _forward(module: nn.Module, forward: Forward) -> Iterator[None]:
    """A module with another forward inside. The instance's own, which accelerate sets, comes back."""
    own = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


def _given(output: Any, *_: Any, **__: Any) -> Any:
    return output


def _input_as(output: Any, *args: Any, **kwargs: Any) -> Any:
    return input_like(output, args, kwargs)


def _hidden(output: Any) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output
