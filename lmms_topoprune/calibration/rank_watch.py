"""Processes that work together hear at once when one of them fails, and soon when one is gone.

They tell each other through torch.distributed's key-value store, which works beside every backend and has
no time-out of minutes or hours as collectives have.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from lmms_topoprune._util.compat import default_store
from lmms_topoprune.errors import InputError

BEAT = 1.0  # seconds between signs of life
SILENCE = 15.0  # seconds without one after which a process counts as gone
LATE = 1800.0  # seconds after which a process that has not even begun counts as gone
POLL = 0.05


class Stopped(InputError):
    """Another process failed or is gone; the sentence is the same in all processes that are left."""


@dataclass(frozen=True)
class Stage:
    """A piece of work that every process does, and after which they wait for each other.

    Attributes:
        store: the key-value store that the processes share.
        rank, world: this process among all.
        name: beginning of the stage's keys.
    """

    store: Any
    rank: int
    world: int
    name: str

    @classmethod
    def enter(cls, rank: int, world: int) -> Stage:
        """The next stage; every process counts its own."""
        return cls._numbered(rank, world, 1)

    @classmethod
    def current(cls, rank: int, world: int) -> Stage:
        """The stage this process entered last."""
        return cls._numbered(rank, world, 0)

    @classmethod
    def _numbered(cls, rank: int, world: int, step: int) -> Stage:
        store = default_store()
        with _reachable():
            return cls(store, rank, world, f"topoprune/{store.add(f'topoprune/stages/{rank}', step)}")

    def check(self) -> None:
        """Look whether somebody has failed.

        Raises:
            Stopped: with the reason.
        """
        with _reachable():
            if self.store.check([f"{self.name}/failed"]):
                reason = self.store.get(f"{self.name}/failed").decode()
                self.store.set(f"{self.name}/told/{self.rank}", "")
                if self.rank == 0:  # the store goes with this process, and the reason with the store
                    self._linger()
                raise Stopped(reason)

    def fail(self, reason: str) -> None:
        """Tell the others, and give them a moment to hear it: a launcher kills them when this one exits."""
        with suppress(RuntimeError):  # the store may be gone already
            self.store.set(f"{self.name}/failed", reason)
            self.store.set(f"{self.name}/told/{self.rank}", "")
            self._linger()

    def _linger(self) -> None:
        """Stay until everybody has heard the reason, or for a moment."""
        everybody = [f"{self.name}/told/{rank}" for rank in range(self.world)]
        end = time.monotonic() + BEAT
        while not self.store.check(everybody) and time.monotonic() < end:
            time.sleep(POLL)

    def wait(self) -> None:
        """Say that this process is done, and wait for the others.

        Raises:
            Stopped: one of them failed or is gone.
        """
        with _reachable():
            self.store.set(f"{self.name}/done/{self.rank}", "")
            watch = _Watch(self)
            while missing := self._missing():
                self.check()
                watch.look(missing)
                time.sleep(POLL)

    def _missing(self) -> list[int]:
        if self.store.check([f"{self.name}/done/{rank}" for rank in range(self.world)]):
            return []
        return [rank for rank in range(self.world) if not self.store.check([f"{self.name}/done/{rank}"])]

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Give signs of life inside."""
        over = threading.Event()

        def beat() -> None:
            try:
                while not over.wait(BEAT):
                    self.store.add(f"{self.name}/beat/{self.rank}", 1)
            except RuntimeError:  # the store is gone, and the main thread will say so
                return

        self.store.add(f"{self.name}/beat/{self.rank}", 1)
        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


class _Watch:
    """When each of the other processes was last heard of."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.looked = stage, 0.0
        self.heard = dict.fromkeys(range(stage.world), (0, time.monotonic()))

    def look(self, missing: list[int]) -> None:
        """Raise Stopped if one of them has been silent for too long."""
        now = time.monotonic()
        if now - self.looked < BEAT:
            return
        self.looked = now
        for rank in missing:
            beats = self.stage.store.add(f"{self.stage.name}/beat/{rank}", 0)
            before, since = self.heard[rank]
            if beats != before:
                self.heard[rank] = (beats, now)
            elif now - since > (SILENCE if beats else LATE):
                reason = (
                    f"process {rank} of {self.stage.world} has not been heard of for {now - since:.0f} s; "
                    "it was killed or hangs"
                )
                self.stage.fail(reason)
                raise Stopped(reason)


@contextmanager
def _reachable() -> Iterator[None]:
    """The store lives in process 0."""
    try:
        yield
    except RuntimeError as error:
        raise Stopped(f"process 0 is gone, which the others need: {' '.join(str(error).split())}") from None
