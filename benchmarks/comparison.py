"""How long `compare` takes, and how much memory, on many runs, tasks and documents made for it.

python benchmarks/comparison.py --runs 300 --tasks 20 --documents 5000
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import tempfile
import time
from pathlib import Path

from lmms_topoprune.comparison.side_by_side import compare
from lmms_topoprune.plan import PruningPlan
from lmms_topoprune.sweep.run_folders import read_runs

DISTINCT = 10
"""Later runs have the samples of earlier ones, as links: writing takes longer than reading."""
ROW = (
    '{"doc_id": %d, "target": "yes", "resps": ["Yes"], "filtered_resps": "Yes", "doc_hash": "c0ffee", '
    '"exact_match": %d.0, "input": "Is there a red circle in image %d? Answer yes or no."}\n'
)


def write(folder: Path, number: int, tasks: int, documents: int) -> None:
    """One run in lmms-eval's layout, dense if it is the first."""
    draw = random.Random(number)
    folder.mkdir()
    names = [f"task{i}" for i in range(tasks)]
    dropped = () if number == 0 else tuple(sorted(draw.sample(range(30), 1 + number % 15)))
    criterion = "dense" if number == 0 else f"own{number}"
    plan = PruningPlan("tiny", "f" * 16, 32, dropped, criterion)
    (folder / "1_plan.json").write_text(json.dumps(plan.to_json() | {"run": {}}))
    results = {
        "results": {name: {"exact_match,none": 0.5} for name in names},
        "configs": {name: {} for name in names},
        "higher_is_better": {name: {"exact_match": True} for name in names},
        "n-samples": {name: {"effective": documents} for name in names},
        "config": {"model": "dense_llava", "model_args": "pretrained=tiny"},
    }
    (folder / "1_results.json").write_text(json.dumps(results))
    for name in names:
        file, earlier = folder / f"1_samples_{name}.jsonl", number - DISTINCT
        if earlier > 0:
            file.hardlink_to(folder.parent / f"run{earlier}" / file.name)
            continue
        answers = (draw.random() < 0.7 for _ in range(documents))
        file.write_text("".join(ROW % (i, right, i) for i, right in enumerate(answers)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("runs", 30), ("tasks", 20), ("documents", 5000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for number in range(asked.runs):
            write(Path(name) / f"run{number}", number, asked.tasks, asked.documents)
        start, began = time.process_time(), time.perf_counter()
        runs = read_runs([name])
        read = time.process_time()
        compare(runs)
        end, ended = time.process_time(), time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    rows = asked.runs * asked.tasks * asked.documents
    print(
        f"{rows} rows: read in {read - start:.1f} s and compared in {end - read:.1f} s of processor time, "
        f"{ended - began:.1f} s by the clock, peak {peak:.2f} GB"
    )


if __name__ == "__main__":
    main()
