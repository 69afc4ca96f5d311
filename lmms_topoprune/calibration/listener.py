"""What a pass over the calibration set asks of those who listen to the decoder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from torch.utils.hooks import RemovableHandle

from lmms_topoprune.calibration.tokens import Tokens


class StopForward(Exception):
    """A listener has what it wants of a batch; the rest of the forward pass is not needed."""


class Listener(Protocol):
    """Hears every batch of a pass; its hooks may raise StopForward."""

    def listening(self) -> AbstractContextManager[None]:
        """Hooks are in place inside, and gone after."""

    def start(self, tokens: Tokens, indices: Sequence[int]) -> None:
        """Forget an unfinished batch and expect the samples `indices`, which have these tokens."""

    def finish(self) -> None:
        """The batch went through."""


@contextmanager
def hooked(hooks: Iterable[RemovableHandle]) -> Iterator[None]:
    """Hooks that are gone after, whatever happens, also while they are being registered."""
    registered = []
    try:
        for hook in hooks:
            registered.append(hook)
        yield
    finally:
        for hook in registered:
            hook.remove()
