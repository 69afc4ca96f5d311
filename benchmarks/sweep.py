"""One sweep against the same cells as separate lmms-eval commands, on the embedded model.

    python benchmarks/sweep.py --limit 100 --sample 3 --clock cpu --out sweep.json

5 criteria x 4 sparsities and the dense model: 21 evaluations. The sweep is run as a whole. Of the separate
commands the dense one and, for --sample criteria drawn with --seed, two sparsities each are run, half of
them before the sweep and half after; the first of the two pays for the calibration, the second finds its
scores in the cache, as any later command would. Their means are scaled to all 21 commands. Both sides start
with an empty cache. --clock cpu counts processor seconds, which a busy machine does not change; use one
thread with it (OMP_NUM_THREADS=1).
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean

from lmms_topoprune._util import files
from lmms_topoprune._util.packaged import shared_path

CRITERIA = ("topology_angle_influence", "cosine", "block_influence", "angular", "gardinazzi")
SPARSITIES = (0.1, 0.2, 0.3, 0.4)
BATCH = 16


def main() -> None:
    arguments = parse()
    with tempfile.TemporaryDirectory() as folder:
        work = Bench(Path(folder), arguments.limit, arguments.clock)
        pairs = drawn(arguments.sample, arguments.seed)
        half = len(pairs) // 2
        dense = work.command("dense_llava", "pretrained=embedded")
        before = [work.pair(*pair) for pair in pairs[:half]]
        sweep = work.sweep(arguments.workers)
        found = before + [work.pair(*pair) for pair in pairs[half:]]
    first, later = zip(*found, strict=True)
    many, rest = len(CRITERIA), len(CRITERIA) * (len(SPARSITIES) - 1)
    estimate = {f.__name__: dense + many * f(first) + rest * f(later) for f in (min, mean, max)}
    result = {
        "limit": arguments.limit,
        "clock": arguments.clock,
        "workers": arguments.workers,
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "sweep": sweep,
        "dense": dense,
        "pairs": {f"{c} {a} then {b}": seconds for (c, a, b), seconds in zip(pairs, found, strict=True)},
        "separate": estimate,
        "ratio": {name: sweep / seconds for name, seconds in estimate.items()},
    }
    files.write_json(arguments.out, result)
    print(
        f"sweep {sweep:.0f} s; separate commands {estimate['mean']:.0f} s "
        f"({estimate['min']:.0f} to {estimate['max']:.0f}); ratio {result['ratio']['mean']:.2f}"
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--limit", type=int, default=100, help="questions a task, of three")
    parser.add_argument("--sample", type=int, default=3, help="criteria whose separate commands are run")
    parser.add_argument("--seed", type=int, default=0, help="draws the criteria and sparsities")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu on a busy machine")
    parser.add_argument("--workers", type=int, default=1, help="of the sweep")
    parser.add_argument("--out", type=Path, default=Path("sweep.json"))
    return parser.parse_args()


def drawn(count: int, seed: int) -> list[tuple[str, float, float]]:
    """(criterion, first sparsity, later one); every sparsity occurs about equally often."""
    rng = random.Random(seed)
    order = [s for _ in range(count) for s in rng.sample(SPARSITIES, len(SPARSITIES))]
    return [(c, order[2 * i], order[2 * i + 1]) for i, c in enumerate(rng.sample(CRITERIA, count))]


class Bench:
    """Runs commands with an empty cache of their own and says what each took."""

    def __init__(self, folder: Path, limit: int, clock: str) -> None:
        self.folder, self.limit, self.clock, self.runs = folder, limit, clock, 0

    def pair(self, criterion: str, first: float, later: float) -> tuple[float, float]:
        """Seconds of a criterion's first command, and of a later one that finds the scores in the cache."""
        shutil.rmtree(self.folder / "cache", ignore_errors=True)
        arguments = [f"pretrained=embedded,criterion={criterion},sparsity={s}" for s in (first, later)]
        return self.command("topopruned_llava", arguments[0]), self.command("topopruned_llava", arguments[1])

    def command(self, model: str, model_args: str) -> float:
        """Seconds of one lmms-eval command."""
        return self._timed(
            *("-m", "lmms_eval", "--model", model, "--model_args", model_args, "--tasks", "topoprune"),
            *("--include_path", str(shared_path("tasks")), "--batch_size", str(BATCH), "--log_samples"),
            *("--limit", str(self.limit), "--output_path", str(self.folder / f"run{self.runs}")),
        )

    def sweep(self, workers: int) -> float:
        """Seconds of the sweep over all cells."""
        shutil.rmtree(self.folder / "cache", ignore_errors=True)
        return self._timed(
            *("-m", "lmms_topoprune.cli.main", "sweep", "--criteria", ",".join(CRITERIA), "--sparsities"),
            *(",".join(map(str, SPARSITIES)), "--limit", str(self.limit), "--batch-size", str(BATCH)),
            *("--workers", str(workers), "-o", str(self.folder / "sweep")),
        )

    def _timed(self, *arguments: str) -> float:
        self.runs += 1
        environment = {**os.environ, "TOPOPRUNE_CACHE": str(self.folder / "cache"), "HF_HUB_OFFLINE": "1"}
        start = self._now()
        subprocess.run([sys.executable, *arguments], env=environment, check=True, stdout=subprocess.DEVNULL)
        taken = self._now() - start
        print(f"{taken:7.1f} s  {' '.join(arguments[:9])}", flush=True)
        return taken

    def _now(self) -> float:
        spent = os.times()
        return time.perf_counter() if self.clock == "wall" else spent.children_user + spent.children_system


if __name__ == "__main__":
    main()
