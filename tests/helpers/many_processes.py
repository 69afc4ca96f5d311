"""Real processes that need the same scores at the same moment.

    python many_processes.py FOLDER

Forks after everything is imported, so that twenty processes cost little more than one: twenty that wait for
the first, and six where nobody can lock, none of which goes on before all six have begun to compute. Each
writes FOLDER/wait/out/NUMBER.json or FOLDER/compute/out/NUMBER.json.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import LlavaProcessor
from two_ranks import samples

from lmms_topoprune._util import disk_cache as caching
from lmms_topoprune._util.disk_cache import Cache
from lmms_topoprune._util.packaged import model_path
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.pipeline import calibrate, make_plan

sys.path.append(str(Path(__file__).parents[2]))

from training.embedded import build

COUNTS = {"wait": 20, "compute": 6}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    processor = LlavaProcessor.from_pretrained(model_path())
    size = build.Size(layers=6, width=32, mlp=64, heads=4, vision_layers=1, vision_width=32)
    model, chosen = build.build_model(processor, size, 0).eval(), samples()[:8]
    for how, count in COUNTS.items():
        if how == "compute":
            caching.locked = _unlocked
        together(model, processor, chosen, folder / how, count)


def together(model: Any, processor: Any, chosen: list[Any], folder: Path, count: int) -> None:
    (folder / "out").mkdir(parents=True)
    start = time.time() + 1.0
    fork = multiprocessing.get_context("fork")
    all_compute = fork.Barrier(count if folder.name == "compute" else 1, timeout=120)

    def child(number: int) -> None:
        time.sleep(max(0.0, start - time.time()))
        found = work(model, processor, chosen, folder / "cache", all_compute)
        (folder / "out" / f"{number}.json").write_text(json.dumps(found))

    children = [fork.Process(target=child, args=(number,)) for number in range(count)]
    for each in children:
        each.start()
    for each in children:
        each.join()


def work(model: Any, processor: Any, chosen: list[Any], folder: Path, meet: Any) -> dict[str, Any]:
    """The plan's hash and scores, how many calibration passes it took, and what was complained about."""
    passes, said = [], []
    collect = calibrate.collect_views

    def counted(*given: Any, **named: Any) -> Any:
        passes.append(1)
        meet.wait()
        return collect(*given, **named)

    calibrate.collect_views = counted
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("lmms_topoprune").addHandler(handler)
    options = PruningOptions(sparsity=0.3, criterion="cosine", samples=8, k="3")
    given: dict[str, Any] = {"name": "tiny", "samples": chosen, "progress": False, "cache": Cache(folder)}
    plan = make_plan(model, processor, options, **given)
    return {"hash": plan.hash, "scores": plan.scores, "passes": len(passes), "said": said}


@contextmanager
def _unlocked(path: Path, seconds: float) -> Any:
    yield False


if __name__ == "__main__":
    main(Path(sys.argv[1]))
