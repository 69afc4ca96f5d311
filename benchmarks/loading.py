"""What lean loading saves at 50 % sparsity: time, memory and bytes read, against the dense load.

    python benchmarks/loading.py --out loading.json

A LLaVA of 4.5 GB in bfloat16 with random weights is made on the spot, in twelve shards (--size 2gb: 2.3 GB
in six). Every load runs in a process of its own, dense and lean in turn. "cold" means that the files are not
in the system's page cache, as on a first load; "warm" that they are. A load ends when the last weight is in
memory: where types and device allow it from_pretrained only maps the files, and returns before anything is
read. The time until it returns and the time until a first forward pass is done are shown as well. Where /tmp
is kept in memory, set TMPDIR to a folder on a disk.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from surgery import build, dropped, machine, peak_bytes, prompt
from transformers import LlavaForConditionalGeneration

from lmms_topoprune._util import files
from lmms_topoprune.plan import PruningPlan
from lmms_topoprune.surgery import decoder_layers, fingerprint, load_pruned

SPARSITY = 0.5
STEPS = ("returned", "resident", "first_pass")
Row = dict[str, float]


def make(size: str, folder: Path) -> dict[str, Any]:
    """Write a dense checkpoint and a plan."""
    model = build(size, "meta", torch.bfloat16).to_empty(device="cpu")
    for parameter in model.parameters():
        parameter.data.fill_(0.01)  # which numbers are loaded does not matter
    model.save_pretrained(folder / "dense", max_shard_size="400MB")
    layers = len(decoder_layers(model))
    PruningPlan("dense", fingerprint(model), layers, dropped(layers, SPARSITY), "given").save(
        folder / "plan.json"
    )
    shards = list((folder / "dense").glob("*.safetensors"))
    facts = {"checkpoint_bytes": sum(file.stat().st_size for file in shards), "shards": len(shards)}
    return {"model": f"LLaVA {size}", "layers": layers, "sparsity": SPARSITY, **facts}


def measure(size: str, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        result = make(size, folder)
        for dtype in ("bfloat16", "float32"):
            for cache in ("cold", "warm") if hasattr(os, "posix_fadvise") else ("warm",):
                runs: dict[str, list[Row]] = {"dense": [], "lean": []}
                for _ in range(rounds):
                    for kind, found in runs.items():
                        found.append(_child(kind, folder, dtype, cache))
                result[f"{dtype}_{cache}"] = compare(runs)
    return result


def compare(runs: dict[str, list[Row]]) -> dict[str, Row]:
    """Medians of both kinds, and lean / dense."""
    medians = {
        kind: {key: statistics.median(run[key] for run in found) for key in found[0]}
        for kind, found in runs.items()
    }
    ratio = {key: value / max(medians["dense"][key], 1e-9) for key, value in medians["lean"].items()}
    return {**medians, "ratio": ratio}


def _child(kind: str, folder: Path, dtype: str, cache: str) -> Row:
    command = [sys.executable, __file__, "--child", kind, "--folder", str(folder), "--dtype", dtype]
    command += ["--cache", cache]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: Row = json.loads(output.splitlines()[-1])
    return found


def load_once(kind: str, folder: Path, dtype: str, cache: str) -> Row:
    """Load, touch every weight, answer once; what a process does only once is done on a toy before."""
    toy = folder / f"toy-{kind}-{dtype}"
    build("toy", "cpu", torch.bfloat16).save_pretrained(toy)
    _pass(_load(kind, toy, PruningPlan("toy", "", 10, dropped(10, SPARSITY), "given"), dtype))
    plan = PruningPlan.load(folder / "plan.json")
    fill(folder / "dense", empty=cache == "cold")
    memory, read, times = peak_bytes(), _read_bytes(), [_now()]
    model = _load(kind, folder / "dense", plan, dtype)
    times.append(_now())
    for parameter in model.parameters():
        parameter.view(-1).view(torch.uint8)[::4096].max().item()
    times.append(_now())
    row = {"peak_bytes": peak_bytes() - memory, "read_bytes": _read_bytes() - read}
    _pass(model)
    times.append(_now())
    for step, (wall, cpu) in zip(STEPS, times[1:], strict=True):
        row |= {f"{step}_s": wall - times[0][0], f"{step}_cpu_s": cpu - times[0][1]}
    return row


def _now() -> tuple[float, float]:
    """Seconds on the wall, and of this process's time, which a busy machine does not stretch."""
    return time.perf_counter(), time.process_time()


def _load(kind: str, path: Path, plan: PruningPlan, dtype: str) -> LlavaForConditionalGeneration:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    settings = {"dtype": getattr(torch, dtype), "device_map": device}
    if kind == "dense":
        return LlavaForConditionalGeneration.from_pretrained(path, **settings)
    return load_pruned(path, plan, **settings)


@torch.no_grad()
def _pass(model: LlavaForConditionalGeneration) -> None:
    model(**prompt(model, 4), logits_to_keep=1).logits.float().sum().item()


def fill(folder: Path, empty: bool) -> None:
    """Put the weights into the page cache, or see to it that none of their bytes is there."""
    for file in folder.glob("*.safetensors"):
        with file.open("rb", buffering=0) as opened:
            if empty:
                os.fsync(opened)
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            else:
                while opened.read(1 << 22):
                    pass


def _read_bytes() -> int:
    """Bytes that this process has had read from the disk so far; 0 where the system does not say."""
    counters = Path("/proc/self/io")
    return int(counters.read_text().split("\nread_bytes: ")[1].split()[0]) if counters.exists() else 0


def show(result: dict[str, Any]) -> None:
    size = f"{result['checkpoint_bytes'] / 1e9:.1f} GB in {result['shards']} shards of bfloat16"
    print(f"{result['model']}, {size}; lean / dense, on the wall (CPU time):")
    print("                 returns      resident    first pass  memory  read   dense resident")
    for key in ("bfloat16_cold", "bfloat16_warm", "float32_cold", "float32_warm"):
        if key in result:
            ratio, dense = result[key]["ratio"], result[key]["dense"]
            times = "  ".join(f"{ratio[f'{step}_s']:.2f} ({ratio[f'{step}_cpu_s']:.2f})" for step in STEPS)
            read = f"{ratio['read_bytes']:.2f}" if dense["read_bytes"] else "   -"
            print(f"{key:13s}  {times}    {ratio['peak_bytes']:.2f}  {read} {dense['resident_s']:10.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--size", choices=("toy", "1gb", "2gb", "4gb"), default="4gb")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", choices=("dense", "lean"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--dtype", help=argparse.SUPPRESS)
    parser.add_argument("--cache", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(load_once(args.child, args.folder, args.dtype, args.cache)))
        return
    result = {**measure(args.size, args.rounds), "machine": machine()}
    show(result)
    if args.out:
        files.write_json(args.out, result)


if __name__ == "__main__":
    main()
