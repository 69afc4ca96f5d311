"""Two gloo processes: they make a plan together, then fail together.

    python two_ranks.py FOLDER

Forks both after everything is imported; each writes FOLDER/plan-RANK.json and FOLDER/problem-RANK.txt.
"""

from __future__ import annotations

import multiprocessing
import random
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from transformers import LlavaProcessor

from lmms_topoprune._util.disk_cache import Cache
from lmms_topoprune._util.packaged import model_path
from lmms_topoprune.calibration.ranks import Ranks
from lmms_topoprune.calibration.samples import Sample
from lmms_topoprune.embedded import questions, scenes
from lmms_topoprune.errors import InputError
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.pipeline import calibrate, make_plan

sys.path.append(str(Path(__file__).parents[2]))

from training.embedded import build


def samples() -> list[Sample]:
    """The same samples as in conftest.py."""
    rng = random.Random(0)
    found: list[Sample] = []
    while len(found) < 32:
        scene = scenes.random_scene(rng, "train")
        if question := questions.ask(rng, scene, rng.choice(questions.KINDS), rng.random() < 0.5):
            found.append(Sample(question.text, scenes.render(scene)))
    return found


def main(folder: Path) -> None:
    fork = multiprocessing.get_context("fork")
    ranks = [fork.Process(target=work, args=(folder, rank)) for rank in range(2)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    sys.exit(any(rank.exitcode for rank in ranks))


def work(folder: Path, rank: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    processor = LlavaProcessor.from_pretrained(model_path())
    size = build.Size(layers=6, width=32, mlp=64, heads=4, vision_layers=1, vision_width=32)
    model = build.build_model(processor, size, 0).eval()
    options = PruningOptions(sparsity=0.3, criterion="cosine", samples=32, k="3")
    given = {
        "name": "tiny",
        "samples": samples(),
        "progress": False,
        "ranks": Ranks.current(),
        "cache": Cache(None),
    }
    make_plan(model, processor, options, **given).save(folder / f"plan-{rank}.json")
    if rank == 1:
        calibrate.collect_views = _fail
    try:
        make_plan(model, processor, options, **given)
    except InputError as error:
        (folder / f"problem-{rank}.txt").write_text(str(error))
    dist.destroy_process_group()


def _fail(*_: object, **__: object) -> None:
    raise InputError("rank 1 has a broken sample")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
