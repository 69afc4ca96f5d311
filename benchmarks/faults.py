"""How often each fault was tried and ended as promised: the figures of research/2026-11-28-faults.md.

    python benchmarks/faults.py --out faults.json --strings 1000 --trials 20 --stops 100

The faults, the grammar of the strings and the checks are those of tests/reliability; here they are tried
many times, with a seed for each trial. One thread is enough (OMP_NUM_THREADS=1). Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", OMP_NUM_THREADS="1")
TRIALS = Path(__file__).parents[1] / "tests" / "reliability"
sys.path.insert(0, str(TRIALS))

from faults import FAULTS  # noqa: E402
from scene import Scene, save_model  # noqa: E402
from strings import Tally, tally  # noqa: E402

from lmms_topoprune._util import files  # noqa: E402

FEWER = {  # processes of their own each time
    "hub lost in the middle of a download": 10,
    "hub out of reach": 4,
    "killed or failing process among three": 10,
}


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        fault: what goes wrong.
        happens: what then happens.
        tried, held: how often it was provoked, and ended so.
        wrong: the first few that did not, for people.
    """

    fault: str
    happens: str
    tried: int
    held: int
    wrong: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"| {self.fault} | {self.happens} | {self.tried} | {self.held} |"


def fault_row(name: str, model: Path, count: int, seconds: float) -> Row:
    """Up to `count` trials, and none more after so many seconds of this process."""
    happens, provoke = FAULTS[name]
    wrong, end, number = [], time.process_time() + seconds, 0
    for number in range(1, count + 1):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            try:
                provoke(Scene(model, Path(folder), random.Random(f"{name} {number}")))
            except Exception as error:
                wrong.append(f"trial {number}: {type(error).__name__}: {error!s:.300}")
        if time.process_time() > end:
            break
    return Row(name, happens, number, number - len(wrong), tuple(wrong[:5]))


def string_row(model: Path, count: int, seed: int) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        found: Tally = tally(Scene(model, Path(folder), random.Random(seed)), count, seed)
    what = f"{found.counts['sentence']} end in one sentence, {found.counts['run']} in a pruned model"
    return Row("fuzzed model_args", what, count, count - len(found.wrong), tuple(found.wrong[:5]))


def stop_rows(model: Path, count: int, seed: int) -> list[Row]:
    """Commands stopped at random moments, by signal."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, TRIALS / "interrupts.py", "--model", model, "--work", folder]
        more = ["--count", str(count), "--seed", str(seed)]
        done = subprocess.run([*command, *more], stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    rows = []
    for name, what in (
        ("SIGINT", "one line, exit code 130, nothing left, the cache valid, the same command then works"),
        ("SIGTERM", "the same, with exit code 143"),
        ("SIGKILL", "the cache valid, no process left, the same command then works"),
    ):
        tried = sum(n for key, n in found.items() if key.startswith(name))
        wrong = [text for text in found["wrong"] if f" {name}: " in text]
        failed = len({text.partition(",")[0] for text in wrong})
        rows.append(Row(f"{name} at a random moment", what, tried, tried - failed, tuple(wrong[:5])))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="write the rows here too, as JSON")
    parser.add_argument("--strings", type=int, default=1000)
    parser.add_argument("--trials", type=int, default=20, help="of each fault")
    parser.add_argument("--seconds", type=float, default=600, help="at most for each fault")
    parser.add_argument("--only", default="", help="faults whose name holds this")
    parser.add_argument("--stops", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    logging.disable(logging.WARNING)  # thousands of warnings are what is asked for here
    with tempfile.TemporaryDirectory() as folder:
        model = save_model(Path(folder) / "model")
        print("| fault | what happens | tried | held |\n|---|---|---|---|")
        rows = []
        for row in _rows(model, given):
            rows.append(row)
            print(row, *row.wrong, sep="\n", flush=True)
            if given.out:
                files.write_json(given.out, [asdict(row) for row in rows])


def _rows(model: Path, given: argparse.Namespace) -> Iterator[Row]:
    if given.strings:
        yield string_row(model, given.strings, given.seed)
    for name in FAULTS if given.trials else ():
        if given.only in name:
            yield fault_row(name, model, min(given.trials, FEWER.get(name, given.trials)), given.seconds)
    if given.stops:
        yield from stop_rows(model, given.stops, given.seed)


if __name__ == "__main__":
    main()
