"""Passes over one calibration set, and probes that look at its first batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import nn

from lmms_topoprune.calibration.collect import evaluation_mode, forward, one_pass
from lmms_topoprune.calibration.decoder import Decoder, Listener, StopForward, hooked, last_logits
from lmms_topoprune.calibration.prompts import Prompter
from lmms_topoprune.calibration.samples import Sample
from lmms_topoprune.calibration.tokens import Tokens
from lmms_topoprune.errors import InputError, SurgeryError

Found = TypeVar("Found")
PEEK = 2
"""Samples that show the structure of a model as well as all of them."""


class Passes(Protocol):
    """A model and its calibration set."""

    def run(self, recorder: Listener, *, peek: bool = False) -> None:
        """Pass everything (or, with `peek`, a little) through the model while the recorder listens."""
        ...


@dataclass(frozen=True)
class SamplePasses:
    """Samples, worded and batched as in the calibration of a criterion."""

    model: Any
    prompter: Prompter
    samples: Sequence[Sample]
    batch_size: int = 8
    advance: Callable[[int], None] = lambda count: None

    def run(self, recorder: Listener, *, peek: bool = False) -> None:
        samples = self.samples[:PEEK] if peek else self.samples
        advance = (lambda count: None) if peek else self.advance
        one_pass(self.model, self.prompter, samples, recorder, batch_size=self.batch_size, advance=advance)


@dataclass(frozen=True)
class BatchPasses:
    """Ready model inputs, such as {"input_ids": (B, T), "attention_mask": (B, T)}; read more than once."""

    model: Any
    batches: Sequence[Mapping[str, Any]] | Iterable[Mapping[str, Any]]

    def run(self, recorder: Listener, *, peek: bool = False) -> None:
        """One pass over the batches, or over the first alone.

        Raises:
            InputError: there are none.
        """
        count = 0
        with recorder.listening(), evaluation_mode(self.model), torch.no_grad(), last_logits(self.model):
            for batch in self.batches:
                count += 1
                recorder.start(Tokens.of(batch, set()), range(len(batch["input_ids"])))
                with suppress(StopForward):
                    forward(self.model, batch)
                recorder.finish()
                if peek:
                    break
        if not count:
            raise InputError(
                "batches is empty, or an iterator that is used up; allowed: a list of model inputs"
            )


@dataclass
class Probe(Generic[Found]):
    """Asks some layers a question on the first batch, while they run on real hidden states.

    Attributes:
        decoder: whose layers.
        layers: their numbers.
        ask: gets a layer and a function that runs it again on its input; gives the answer.
        found: answers by layer.
    """

    decoder: Decoder
    layers: frozenset[int]
    ask: Callable[[nn.Module, Callable[[], torch.Tensor]], Found]
    found: dict[int, Found] = field(default_factory=dict)

    def listening(self) -> AbstractContextManager[None]:
        return hooked(
            self.decoder.layers[number].register_forward_hook(self._hook(number), with_kwargs=True)
            for number in sorted(self.layers)
        )

    def start(self, tokens: Tokens, indices: Sequence[int]) -> None: ...

    def finish(self) -> None: ...

    def _hook(self, number: int) -> Any:
        def hook(layer: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            hidden = args[0] if args else kwargs["hidden_states"]

            def run() -> torch.Tensor:
                return self.decoder.hidden(rerun(layer, hidden, args, kwargs))

            try:
                self.found[number] = self.ask(layer, run)
            except SurgeryError as error:
                raise SurgeryError(f"layer {number} cannot take it up: {error}") from None
            if number == max(self.layers):
                raise StopForward

        return hook


def rerun(layer: nn.Module, hidden: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A layer's output for other hidden states than it was called with; its own hooks stay silent."""
    if args:
        return layer.forward(hidden, *args[1:], **kwargs)
    return layer.forward(**{**kwargs, "hidden_states": hidden})


@dataclass
class LogitsProbe:
    """Keeps what a model gives on the first batch: the last positions' logits."""

    model: nn.Module
    value: torch.Tensor | None = None

    def listening(self) -> AbstractContextManager[None]:
        return hooked([self.model.register_forward_hook(self._keep)])

    def start(self, tokens: Tokens, indices: Sequence[int]) -> None: ...

    def finish(self) -> None: ...

    def _keep(self, _: nn.Module, args: Any, output: Any) -> None:
        self.value = (output[0] if not torch.is_tensor(output) else output).float()
