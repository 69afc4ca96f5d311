"""Several processes share one calibration pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist

from lmms_topoprune.calibration.evidence import Evidence
from lmms_topoprune.calibration.samples import Sample
from lmms_topoprune.errors import InputError, TopopruneError

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

    def together(self, work: Callable[[], Result]) -> list[Result]:
        """Do something in every process; returns all results everywhere, in the order of ranks.

        Raises:
            TopopruneError: in every process, if one of them failed; the sentence names its rank.
        """
        if self.world == 1:
            return [work()]
        result, problem = _attempt(work)
        problems: list[str | None] = [None] * self.world
        dist.all_gather_object(problems, problem)
        for rank, found in enumerate(problems):
            if found is not None:
                raise InputError(f"process {rank} of {self.world} failed: {found}")
        results: list[Any] = [None] * self.world
        dist.all_gather_object(results, result)
        return results

    def first(self, work: Callable[[], Result]) -> Result:
        """Do something in rank 0 and give its result to all.

        Raises:
            TopopruneError: in every process, if rank 0 failed.
        """
        if self.world == 1:
            return work()
        box: list[Any] = list(_attempt(work)) if self.rank == 0 else [None, None]
        dist.broadcast_object_list(box, src=0)
        if box[1] is not None:
            raise InputError(box[1])
        return box[0]


def _attempt(work: Callable[[], Result]) -> tuple[Result | None, str | None]:
    """The result, or why there is none: the other processes wait and have to be told."""
    try:
        return work(), None
    except TopopruneError as error:
        return None, str(error)
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"


def merged(parts: Sequence[Evidence]) -> Evidence:
    """One pass's evidence out of what every rank found on its share of the samples."""
    if len(parts) == 1:
        return parts[0]
    states = {name: _interleaved([p.states[name] for p in parts]) for name in parts[0].states}
    tokens = sum(part.tokens for part in parts)
    sums = {name: np.sum([p.sums[name] * p.tokens for p in parts], axis=0) / tokens for name in parts[0].sums}
    return replace(parts[0], states=states, sums=sums, tokens=tokens)


def _interleaved(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """(L + 1, N, d): column n came from rank n modulo the number of ranks."""
    total = sum(part.shape[1] for part in parts)
    whole = parts[0].new_empty(parts[0].shape[0], total, parts[0].shape[2])
    for rank, part in enumerate(parts):
        whole[:, rank :: len(parts)] = part
    return whole
