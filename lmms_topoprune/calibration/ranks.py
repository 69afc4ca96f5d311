"""Several processes share one calibration pass."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from lmms_topoprune.calibration.collect import Collected
from lmms_topoprune.calibration.recorder import View
from lmms_topoprune.calibration.samples import Sample
from lmms_topoprune.calibration.states import TokenSums
from lmms_topoprune.calibration.tokens import Draw, Points
from lmms_topoprune.errors import InputError, reason_of

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
        store = dist.distributed_c10d._get_default_store()  # which every launched process shares
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


Result = TypeVar("Result")


@dataclass(frozen=True)
class Ranks:
    """This process among all: rank 0 <= r < world. One process alone needs no torch.distributed."""

    rank: int = 0
    world: int = 1

    @classmethod
    def current(cls) -> Ranks:
        """As torchrun or accelerate has set them up; call it after the process group exists."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    def share(self, samples: Sequence[Sample]) -> Sequence[Sample]:
        """Every world-th sample, from this rank's on."""
        return samples[self.rank :: self.world]

    def numbers(self, count: int) -> range:
        """Which of `count` samples are this rank's share."""
        return range(self.rank, count, self.world)

    def check(self) -> None:
        """For long work inside the methods below: stop as soon as another process has failed.

        Raises:
            Stopped: with its reason.
        """
        if self.world > 1:
            Stage.current(self.rank, self.world).check()

    def each(self, work: Callable[[], Result]) -> Result:
        """Do something in every process; returns this one's result, once all have theirs.

        Raises:
            TopopruneError: in every process, if one of them failed or is gone; the sentence names its rank.
        """
        return work() if self.world == 1 else self._all_succeed(work)

    def together(self, work: Callable[[], Result]) -> list[Result]:
        """The same, but everybody gets all results, in the order of ranks."""
        if self.world == 1:
            return [work()]
        result = self._all_succeed(work)
        results: list[Any] = [None] * self.world
        dist.all_gather_object(results, result)
        return results

    def gathered(self, work: Callable[[], Result]) -> list[Result]:
        """The same, but only process 0 gets all results; the others get an empty list."""
        if self.world == 1:
            return [work()]
        result = self._all_succeed(work)
        results: list[Any] = [None] * self.world if self.rank == 0 else []
        dist.gather_object(result, results or None, dst=0)
        return results

    def first(self, work: Callable[[], Result]) -> Result:
        """Do something in process 0 and give its result to all.

        Raises:
            TopopruneError: in every process, if process 0 failed or one is gone.
        """
        if self.world == 1:
            return work()
        box = [self._all_succeed(work) if self.rank == 0 else self._all_succeed(lambda: None)]
        dist.broadcast_object_list(box, src=0)
        return box[0]  # type: ignore[return-value]

    def _all_succeed(self, work: Callable[[], Result]) -> Result:
        """This process's result, once all have theirs. Whoever fails tells the others why."""
        stage = Stage.enter(self.rank, self.world)
        with stage.beating():
            try:
                result = work()
            except Stopped:
                raise
            except BaseException as error:
                sentence = f"process {self.rank} of {self.world} failed: {reason_of(error)}"
                stage.fail(sentence)
                if not isinstance(error, Exception):
                    raise
                raise Stopped(sentence) from error
            stage.wait()
        return result


def merged(parts: Sequence[Collected]) -> Collected:
    """One pass out of what every rank found on its share of the samples."""
    parts = [part for part in parts if part.sums.tokens] or parts[:1]  # the others had no sample
    if len(parts) == 1:
        return parts[0]
    vectors: dict[View, torch.Tensor] = {}
    points: dict[Draw, Points] = {}
    for view in parts[0].vectors:
        found = [part.vectors[view] for part in parts]
        if view.draw is None:
            vectors[view] = _interleaved(found)
        else:
            points[view.draw], chosen = _drawn(view.draw, [part.points[view.draw] for part in parts])
            vectors[view] = torch.cat(found, 1)[:, torch.from_numpy(chosen)]
    norms = reduce(add, (part.norms for part in parts if part.norms is not None))
    pooled = _pooled([part.sums for part in parts])
    return replace(parts[0], vectors=vectors, sums=pooled, points=points, norms=norms)


def _drawn(draw: Draw, parts: Sequence[Points]) -> tuple[Points, NDArray[np.int64]]:
    """The points among those of every rank, and their places behind one another."""
    together = reduce(add, parts)
    chosen = draw.lowest(together)
    chosen = chosen[together[chosen].order()]
    return together[chosen], chosen


def _pooled(parts: Sequence[TokenSums]) -> TokenSums:
    """Means over the tokens of all."""
    tokens = sum(part.tokens for part in parts)
    means = {n: np.sum([p.means[n] * p.tokens for p in parts], axis=0) / tokens for n in parts[0].means}
    return TokenSums(means, tokens)


def _interleaved(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """(L + 1, N, d): column n came from rank n modulo the number of ranks."""
    total = sum(part.shape[1] for part in parts)
    whole = parts[0].new_empty(parts[0].shape[0], total, parts[0].shape[2])
    for rank, part in enumerate(parts):
        whole[:, rank :: len(parts)] = part
    return whole
