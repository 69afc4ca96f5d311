"""Seconds and peak memory of the zigzag barcode, against every peer that is installed.

    python benchmarks/topology.py --out topology.json

Peers: pyfzz (the authors' FastZigZag), dionysus, oineus (reducing the matrix of FastZigZag), and the recipe
of the ZigZagLLMs repository (scikit-learn's neighbors, GUDHI's expansion, pyfzz). Every measurement has a
process of its own. All peers but the recipe get the same simplices ready-made, and are timed without them;
"lmms-topoprune" starts from the hidden states, "lmms-topoprune, bars" from the same neighbor graphs.

The states are synthetic: N points with a power-law spectrum in 40 dimensions drift through S states and are
embedded in d dimensions. On two cores set the number of BLAS threads to two.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

RANK = 40
Work = Callable[[], Any]


def hidden_states(s: int, n: int, d: int, seed: int = 0) -> np.ndarray:
    """(S, N, d) float32."""
    rng = np.random.default_rng(seed)
    spectrum = 1 / np.sqrt(1 + np.arange(RANK))
    points, embedding = rng.normal(size=(n, RANK)) * spectrum, rng.normal(size=(RANK, d))
    out = np.empty((s, n, d), dtype=np.float32)
    for state in out:
        turn = np.tanh(points @ rng.normal(size=(RANK, RANK)) / np.sqrt(RANK))
        points = points + (0.35 * turn + 0.08 * rng.normal(size=points.shape)) * spectrum
        state[:] = points @ embedding
    return out


def ours(states: np.ndarray, k: int) -> Work:
    from lmms_topoprune.topology import inter_layer_persistence, jaccard, zigzag_barcode

    def work() -> int:
        barcode = zigzag_barcode(states, k=k)
        inter_layer_persistence(barcode, 1), jaccard(barcode, 1)
        return len(barcode.bars(1))

    zigzag_barcode(states[:2, : k + 2], k=k)
    return work


def our_bars(states: np.ndarray, k: int) -> Work:
    from lmms_topoprune.topology import graphs_barcode
    from lmms_topoprune.topology.neighbors import graphs

    found = graphs(states, k)
    graphs_barcode(found[:2])
    return lambda: len(graphs_barcode(found).bars(1))


def cells(states: np.ndarray, k: int) -> list[list[tuple[int, ...]]]:
    from lmms_topoprune.topology.complexes import flag_simplices
    from lmms_topoprune.topology.neighbors import graphs

    return [flag_simplices(graph, 2) for graph in graphs(states, k)]


def events(complexes: list[list[tuple[int, ...]]]) -> tuple[list[tuple[str, list[int]]], list[int]]:
    """Insertions and deletions, one simplex at a time, and the index that each one belongs to."""
    line = [set(complexes[0])]
    for before, after in pairwise(map(set, complexes)):
        line += [before & after, after]
    steps: list[tuple[str, list[int]]] = []
    index: list[int] = []
    held: set[tuple[int, ...]] = set()
    for i, wanted in enumerate(line):
        steps += [("d", list(s)) for s in sorted(held - wanted, key=lambda s: (-len(s), s))]
        steps += [("i", list(s)) for s in sorted(wanted - held, key=lambda s: (len(s), s))]
        index += [i] * (len(steps) - len(index))
        held = wanted
    return steps, [*index, len(line)]


def fastzigzag(steps: list[tuple[str, list[int]]], index: list[int]) -> int:
    from pyfzz import pyfzz

    found = pyfzz().compute_zigzag(steps)
    return sum(p == 1 and index[b - 1] < index[d] for b, d, p in found)


def pyfzz(states: np.ndarray, k: int) -> Work:
    steps, index = events(cells(states, k))
    return lambda: fastzigzag(steps, index)


def recipe(states: np.ndarray, k: int) -> Work:
    import gudhi
    from sklearn.neighbors import kneighbors_graph

    def work() -> int:
        complexes = []
        for points in states:
            graph = kneighbors_graph(points, k).toarray()
            tree = gudhi.SimplexTree.create_from_array(
                1 - np.maximum(graph, graph.T) - np.eye(len(graph)), 0.5
            )
            tree.expansion(2)
            complexes.append([tuple(s) for s, _ in tree.get_simplices()])
        return fastzigzag(*events(complexes))

    return work


def dionysus(states: np.ndarray, k: int) -> Work:
    import dionysus as d

    steps, index = events(cells(states, k))
    times: dict[tuple[int, ...], list[float]] = {}
    for (_, simplex), i in zip(steps, index, strict=False):
        times.setdefault(tuple(simplex), []).append(float(i))
    filtration = d.Filtration([list(s) for s in times])
    ordered = [times[tuple(s)] for s in filtration]

    def work() -> int:
        _, diagrams, _ = d.zigzag_homology_persistence(filtration, ordered)
        return sum(bar.birth < bar.death for bar in diagrams[1])

    return work


def oineus(states: np.ndarray, k: int) -> Work:
    import oineus as o

    from lmms_topoprune.topology.complexes import cells_of
    from lmms_topoprune.topology.fastzigzag import matrix_of

    found = cells_of(cells(states, k), 2)
    columns, bars = matrix_of(found)

    def work() -> int:
        decomposition = o.Decomposition(columns, len(columns))
        parameters = o.ReductionParams(n_threads=os.cpu_count() or 1)
        decomposition.reduce(parameters)
        low = np.array([column[-1] if column else -1 for column in decomposition.r_data])
        return int((bars(low)[:, 0] == 1).sum())

    return work


PROGRAMS = {
    "lmms-topoprune": ours,
    "lmms-topoprune, bars": our_bars,
    "pyfzz": pyfzz,
    "ZigZagLLMs recipe": recipe,
    "dionysus": dionysus,
    "oineus": oineus,
}
NEEDS = {
    "pyfzz": ["pyfzz"],
    "ZigZagLLMs recipe": ["pyfzz", "sklearn"],
    "dionysus": ["dionysus"],
    "oineus": ["oineus"],
}


def measure(name: str, s: int, n: int, d: int, k: int, rounds: int) -> dict[str, Any]:
    """Best of some rounds in this process; peak memory over everything, the states included."""
    import resource

    work = PROGRAMS[name](hidden_states(s, n, d), k)
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        loops = work()
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "program": name,
        "S": s,
        "N": n,
        "k": k,
        "seconds": min(seconds),
        "peak_gib": peak,
        "h1_bars": loops,
    }


def cold(s: int, n: int, d: int, k: int) -> dict[str, Any]:
    """A new process that has NumPy and the states but nothing compiled: import, compile, first barcode."""
    code = (
        "import sys, time, numpy as np\n"
        "states = np.load(sys.argv[1]); start = time.perf_counter()\n"
        "from lmms_topoprune.topology import zigzag_barcode\n"
        f"zigzag_barcode(states, k={k}); print(time.perf_counter() - start)"
    )
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "NUMBA_CACHE_DIR": folder}
        np.save(file := f"{folder}/states.npy", hidden_states(s, n, d))
        seconds = float(
            subprocess.check_output([sys.executable, "-c", code, file], env=environment, text=True)
        )
    return {"program": "lmms-topoprune, cold start", "S": s, "N": n, "k": k, "seconds": seconds}


def in_own_process(*arguments: object) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", json.dumps(arguments)]
    return json.loads(subprocess.check_output(command, text=True).splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--states", type=int, default=33)
    parser.add_argument("--samples", type=int, nargs="+", default=[512])
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--k", type=int, nargs="+", default=[5, 10, 15])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=list(PROGRAMS), choices=PROGRAMS)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(*json.loads(options.child))))
        return
    names = [n for n in options.only if all(find_spec(module) for module in NEEDS.get(n, []))]
    print("not installed:", ", ".join(sorted(set(PROGRAMS) - set(names))) or "none")
    rows = [cold(options.states, options.samples[0], options.width, options.k[0])]
    print(f"cold start: {rows[0]['seconds']:.2f} s")
    print(f"{'program':24}{'N':>6}{'k':>4}{'seconds':>10}{'ratio':>8}{'peak GiB':>10}{'H1 bars':>9}")
    for n in options.samples:
        for k in options.k:
            base = None
            for name in names:
                rounds = options.rounds if name.startswith("lmms") else 1
                row = in_own_process(name, options.states, n, options.width, k, rounds)
                base = row["seconds"] if name == "lmms-topoprune, bars" else base
                ratio = row["seconds"] / base if base and not name.startswith("lmms") else float("nan")
                row["ratio"] = None if ratio != ratio else ratio
                rows.append(row)
                print(
                    f"{name:24}{n:6}{k:4}{row['seconds']:10.3f}{ratio:8.1f}{row['peak_gib']:10.2f}{row['h1_bars']:9}",
                    flush=True,
                )
    if options.out:
        result = {
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "rows": rows,
        }
        options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
