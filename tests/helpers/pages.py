"""A report with everything in it, from result folders written by hand."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import folders
import numpy as np

from lmms_topoprune.comparison.side_by_side import compare
from lmms_topoprune.report.build import report
from lmms_topoprune.results.similarity import Shape
from lmms_topoprune.sweep.run_folders import read_runs
from lmms_topoprune.topology import Barcode, jaccard

LAYERS, DOCUMENTS = 10, 60
CRITERIA = (
    *(
        "angular",
        "block_influence",
        "cosine",
        "gardinazzi",
        "greedy",
        "last_n",
        "random",
        "relative_magnitude",
    ),
    *("taylor", "topology", "<b>&uniform"),
)
RECORD = {
    "dtype": "torch.float32",
    "device": "cpu",
    "size": {"parameters": 7_000_000, "weight_bytes": 28_000_000, "held_bytes": 4_000_000},
    "answers": {"total": DOCUMENTS, "failed": 0},
}


SEEDS = {"topology": (0, 1, 2)}
"""Criterion -> its calibration seeds; the others have one."""
PICTURE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAIAAAD91JpzAAAAFklEQVR4nGM8ISfHwMDAxMDAwMDAAAANBAEIfXHK"
    "ZgAAAABJRU5ErkJggg=="
)
"""Two pixels by two."""


def write_sweep(folder: Path, criteria: tuple[str, ...] = CRITERIA) -> Path:
    """A dense run and every criterion at three sparsities."""
    rng = np.random.default_rng(0)
    write_run(folder / "dense", rng, (), "dense", 0.9)
    for number, criterion in enumerate(criteria):
        for count, seed in product((2, 4, 6), SEEDS.get(criterion, (0,))):
            start = 1 + (number + count + seed) % (LAYERS - 1 - count)
            dropped = tuple(range(start, start + count))
            share = 0.95 - 0.012 * count * (number + 1)
            write_run(folder / f"{number}-{count}-{seed}", rng, dropped, criterion, share, seed)
    return folder


def write_run(
    folder: Path,
    rng: np.random.Generator,
    dropped: tuple[int, ...],
    criterion: str,
    share: float,
    seed: int = 0,
) -> None:
    seconds = {
        "calibrate": {"seconds": 3.0, "peak_bytes": 9e8},
        "generate": {"seconds": 6.0 - 0.3 * len(dropped) + 0.2 * rng.random(), "peak_bytes": 5e8},
    }
    scores = tuple(rng.random(LAYERS)) if dropped else None
    calibration = {"seed": seed, "token": "last"}
    asked = {"sparsity": len(dropped) / LAYERS}
    known = {"scores": scores, "stages": seconds, "calibration": calibration, "parameters": asked}
    plan = folders.plan(dropped, criterion, **known)
    rows = folders.exact((rng.random(DOCUMENTS) < share).astype(float).tolist())
    about = {"target": "yes", "input_media": [PICTURE]}
    rows = [row | about | {"filtered_resps": "yes" if row["exact_match"] else "no"} for row in rows]
    folders.write(folder, {"vqa": rows}, plan, {"vqa": 0.3}, record=RECORD)


def barcode(states: int = LAYERS + 1, bars: int = 400) -> Barcode:
    rng = np.random.default_rng(1)
    birth = rng.integers(0, 2 * states - 2, bars)
    death = np.minimum(birth + 1 + rng.geometric(0.3, bars), 2 * states - 1)
    return Barcode(np.ones(bars, dtype=int), birth, death, states)


def shapes() -> dict[str, Shape]:
    bars = barcode()
    topology = Shape(jaccard(bars, 1).tolist(), {5: (bars, 1)})
    return {
        "topology": topology,
        "gardinazzi": Shape(None, {5: (bars, 1)}),
        "cosine": Shape([[1, 0.5], [0.5, 1]]),
    }


def page(folder: Path, criteria: tuple[str, ...] = CRITERIA) -> str:
    runs = read_runs([write_sweep(folder, criteria)])
    return report(compare(runs, every_seed=True), runs, shapes=shapes())
