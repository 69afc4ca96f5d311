"""Several processes share one calibration pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from lmms_topoprune.calibration.collect import Collected
from lmms_topoprune.calibration.rank_watch import Stage, Stopped
from lmms_topoprune.calibration.recorder import View
from lmms_topoprune.calibration.samples import Sample
from lmms_topoprune.calibration.states import TokenSums
from lmms_topoprune.calibration.token_cloud import Draw, Points
from lmms_topoprune.errors import TopopruneError

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
                sentence = f"process {self.rank} of {self.world} failed: {_reason(error)}"
                stage.fail(sentence)
                if not isinstance(error, Exception):
                    raise
                raise Stopped(sentence) from error
            stage.wait()
        return result


def _reason(error: BaseException) -> str:
    return str(error) if isinstance(error, TopopruneError) else f"{type(error).__name__}: {error}"


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
