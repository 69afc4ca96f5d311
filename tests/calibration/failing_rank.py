"""Three gloo processes that work together; one of them raises, is interrupted or is killed.

    python failing_rank.py FOLDER WHAT ...

Forks three processes a mishap after everything is imported. Each writes FOLDER/WHAT/RANK.json: what was
raised there, and how many seconds after the mishap.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import sys
import time
from pathlib import Path

import torch.distributed as dist

from lmms_topoprune.calibration import ranks as stage
from lmms_topoprune.calibration.ranks import Ranks
from lmms_topoprune.errors import InputError

WORLD = 3
LONGEST = 90  # seconds


def main(folder: Path, mishaps: list[str]) -> None:
    fork = multiprocessing.get_context("fork")
    for what in mishaps:
        (folder / what).mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        for rank in range(WORLD):
            fork.Process(target=work, args=(folder / what, rank, what, port)).start()


def work(folder: Path, rank: int, what: str, port: int) -> None:
    signal.alarm(LONGEST)
    stage.SILENCE = 3.0
    store = dist.TCPStore("127.0.0.1", port, WORLD, is_master=rank == 0)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=WORLD)
    ranks = Ranks.current()
    found = {"shares": ranks.together(lambda: rank), "first": ranks.first(lambda: f"from {rank}")}
    found["gathered"] = ranks.gathered(lambda: rank)
    failing = 0 if what == "kill first" else 1
    try:
        if what.endswith("raise after"):
            ranks.gathered(lambda: mishap(folder, what) if rank == failing else None)
        else:
            ranks.together(lambda: mishap(folder, what) if rank == failing else long_work(ranks, what))
    except BaseException as error:
        found |= {"seconds": time.time() - float((folder / "moment").read_text())}
        found |= {"error": type(error).__name__, "sentence": str(error)}
    (folder / f"{rank}.json").write_text(json.dumps(found))
    os._exit(0)  # the group cannot be left in order


def mishap(folder: Path, what: str) -> None:
    time.sleep(0.5)
    (folder / "moment").write_text(str(time.time()))
    if what.startswith("kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    raise KeyboardInterrupt if what == "interrupt" else InputError("the sample is broken")


def long_work(ranks: Ranks, what: str) -> None:
    """A minute of batches; when one is killed the others are waiting already."""
    if what.startswith("kill"):
        return
    for _ in range(600):
        time.sleep(0.1)
        ranks.check()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
