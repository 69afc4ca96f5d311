"""How long the plans of a large grid take, by a criterion that needs no samples, for a tiny decoder.

python benchmarks/planning.py --seeds 100    # 20 sparsities each: 2,000 cells
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from transformers import LlamaConfig, LlamaForCausalLM

from lmms_topoprune.pipeline import Planner
from lmms_topoprune.sweep.folder import SweepFolder
from lmms_topoprune.sweep.grid import Grid
from lmms_topoprune.sweep.runner import Watcher, plans_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--layers", type=int, default=32)
    asked = parser.parse_args()
    small = {"hidden_size": 32, "intermediate_size": 32, "vocab_size": 64}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(num_hidden_layers=asked.layers, **small, **heads))
    sparsities = tuple(number / 40 for number in range(2, 22))
    grid = Grid(("random",), sparsities, tuple(range(asked.seeds)))
    planner = Planner("tiny", model, None, progress=True)
    with tempfile.TemporaryDirectory() as folder:
        store = SweepFolder(Path(folder) / "sweep")
        for what in ("made", "read again"):
            start, began = time.process_time(), time.perf_counter()
            with store.alone():
                plans = plans_of(planner, grid, store, Watcher())
            end, ended = time.process_time(), time.perf_counter()
            print(
                f"{len(plans)} plans {what}: {end - start:.1f} s of processor time, "
                f"{ended - began:.1f} s by the clock"
            )


if __name__ == "__main__":
    main()
