"""Several processes: the first one plans, all of them answer, the first one reports."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch.distributed as dist

from lmms_topoprune.errors import TopopruneError
from lmms_topoprune.harness.answers import Answers
from lmms_topoprune.plan import PruningPlan


def several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def first_process() -> bool:
    return int(os.environ.get("RANK", 0)) == 0


def from_first_process(make: Callable[[], PruningPlan]) -> PruningPlan:
    """Make a plan in process 0 and hand it to all; its error is raised in all of them too."""
    if not several():
        return make()
    box: list[PruningPlan | TopopruneError | None] = [None]
    if first_process():
        try:
            box[0] = make()
        except TopopruneError as error:
            box[0] = error
    dist.broadcast_object_list(box, src=0)
    if isinstance(box[0], TopopruneError):
        raise box[0]
    assert isinstance(box[0], PruningPlan)
    return box[0]


def gathered(answers: Answers) -> Answers:
    """The counts of all processes, in process 0; elsewhere the process's own."""
    if not several():
        return answers
    parts: list[Answers] = [Answers()] * dist.get_world_size()
    dist.gather_object(answers, parts if first_process() else None, dst=0)
    if not first_process():
        return answers
    total = Answers()
    for part in parts:
        total += part
    return total
