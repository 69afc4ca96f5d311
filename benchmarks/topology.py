"""Seconds and peak memory of both zigzags, against every peer that is installed.

    python benchmarks/topology.py --out topology.json

Peers: pyfzz (the authors' FastZigZag), dionysus, oineus (reducing the matrix of FastZigZag), and the recipe
of the ZigZagLLMs repository (scikit-learn's neighbors, GUDHI's expansion, pyfzz). Every measurement has a
process of its own. All peers but the recipe get the same simplices ready-made, and are timed without them;
programs called "bars" start from the same neighbors, the others from the hidden states. `cpu` is processor
time over all threads, which other programs on the machine disturb less; `reference` is the time of one
product of float32 matrices (2,048 x 2,048) in the same process, to compare machines by.

The states are synthetic: N points with a power-law spectrum in 40 dimensions drift through S states and are
embedded in d dimensions; the width of the drift is that of one layer of a decoder, so that unions share
edges. On two cores set the number of threads (OMP_NUM_THREADS) to two.
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
from functools import partial
from importlib.util import find_spec
from itertools import pairwise, product
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


def ours(through: tuple[str, ...]) -> Callable[[np.ndarray, int], Work]:
    def program(states: np.ndarray, k: int) -> Work:
        from lmms_topoprune.topology import Neighbors, jaccard, neighbors_barcode

        def work(given: np.ndarray = states) -> list[int]:
            neighbors = Neighbors.of(given, k, unions="adjacent" if "unions" in through else "none")
            barcodes = [neighbors_barcode(neighbors, k=k, through=t) for t in through]
            return [len(b.bars(1)) for b in barcodes if jaccard(b, 1) is not None]

        work(states[:3, : 3 * k])
        return work

    return program


def our_bars(through: str) -> Callable[[np.ndarray, int], Work]:
    def program(states: np.ndarray, k: int) -> Work:
        from lmms_topoprune.topology import Neighbors, neighbors_barcode

        found = Neighbors.of(states, k, unions="adjacent")
        neighbors_barcode(Neighbors.of(states[:2], k, unions="adjacent"), k=k, through=through)
        return lambda: [len(neighbors_barcode(found, k=k, through=through).bars(1))]

    return program


def direct(states: np.ndarray, k: int) -> Work:
    from lmms_topoprune.topology import similarity

    similarity(states[:2], ks=(k,), through="unions", direct=True)
    return lambda: [similarity(states, ks=(k,), through="unions", direct=True).size]


def cells(states: np.ndarray, k: int, through: str) -> list[list[tuple[int, ...]]]:
    """K_0, K_1, ...; for unions K(X_0), K(X_0 u X_1), K(X_1), ..."""
    from lmms_topoprune.topology import Neighbors
    from lmms_topoprune.topology.complexes import flag_simplices
    from lmms_topoprune.topology.zigzag import union_complexes

    if through == "unions":
        return union_complexes(Neighbors.of(states, k, unions="adjacent"), k, 2)
    neighbors = Neighbors.of(states, k)
    return [flag_simplices(neighbors.graph(state, k), 2) for state in range(len(states))]


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


def pyfzz(states: np.ndarray, k: int, through: str) -> Work:
    steps, index = events(cells(states, k, through))
    return lambda: [fastzigzag(steps, index)]


def recipe(states: np.ndarray, k: int) -> Work:
    import gudhi
    from sklearn.neighbors import kneighbors_graph

    def work() -> list[int]:
        complexes = []
        for points in states:
            graph = kneighbors_graph(points, k).toarray()
            tree = gudhi.SimplexTree.create_from_array(
                1 - np.maximum(graph, graph.T) - np.eye(len(graph)), 0.5
            )
            tree.expansion(2)
            complexes.append([tuple(s) for s, _ in tree.get_simplices()])
        return [fastzigzag(*events(complexes))]

    return work


def dionysus(states: np.ndarray, k: int, through: str) -> Work:
    import dionysus as d

    steps, index = events(cells(states, k, through))
    times: dict[tuple[int, ...], list[float]] = {}
    for (_, simplex), i in zip(steps, index, strict=False):
        times.setdefault(tuple(simplex), []).append(float(i))
    filtration = d.Filtration([list(s) for s in times])
    ordered = [times[tuple(s)] for s in filtration]

    def work() -> list[int]:
        _, diagrams, _ = d.zigzag_homology_persistence(filtration, ordered)
        return [sum(bar.birth < bar.death for bar in diagrams[1])]

    return work


def oineus(states: np.ndarray, k: int, through: str) -> Work:
    import oineus as o

    from lmms_topoprune.topology.complexes import cells_of
    from lmms_topoprune.topology.fastzigzag import matrix_of

    found = cells_of(cells(states, k, through), 2)
    columns, bars = matrix_of(found)

    def work() -> list[int]:
        decomposition = o.Decomposition(columns, len(columns))
        parameters = o.ReductionParams(n_threads=os.cpu_count() or 1)
        decomposition.reduce(parameters)
        low = np.array([column[-1] if column else -1 for column in decomposition.r_data])
        return [int((bars(low)[:, 0] == 1).sum())]

    return work


PROGRAMS: dict[str, Callable[..., Work]] = {
    "both zigzags": ours(("intersections", "unions")),
    "intersections": ours(("intersections",)),
    "unions": ours(("unions",)),
    "direct pairs, unions": direct,
    "bars, intersections": our_bars("intersections"),
    "bars, unions": our_bars("unions"),
    **{
        f"{peer.__name__}, {through}": partial(peer, through=through)
        for peer in (pyfzz, dionysus, oineus)
        for through in ("intersections", "unions")
    },
    "ZigZagLLMs recipe": recipe,
}
NEEDS = {
    "pyfzz": ["pyfzz"],
    "ZigZagLLMs recipe": ["pyfzz", "sklearn"],
    "dionysus": ["dionysus"],
    "oineus": ["oineus"],
}
OURS = ("both zigzags", "intersections", "unions", "direct pairs, unions")


def measure(name: str, s: int, n: int, d: int, k: int, rounds: int) -> dict[str, Any]:
    """Best of some rounds in this process; peak memory over everything, the states included."""
    import resource

    work = PROGRAMS[name](hidden_states(s, n, d), k)
    seconds, cpu = [], []
    for _ in range(rounds):
        start, spent = time.perf_counter(), time.process_time()
        loops = work()
        seconds.append(time.perf_counter() - start)
        cpu.append(time.process_time() - spent)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    row = {"program": name, "S": s, "N": n, "d": d, "k": k, "seconds": min(seconds), "cpu": min(cpu)}
    return {**row, "reference": reference(), "peak_gib": peak, "h1_bars": loops}


def reference() -> float:
    """Seconds of processor time for a known piece of work."""
    matrix = np.ones((2048, 2048), dtype=np.float32)
    start = time.process_time()
    for _ in range(3):
        matrix @ matrix
    return (time.process_time() - start) / 3


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
    return {"program": "cold start", "S": s, "N": n, "d": d, "k": k, "seconds": seconds}


def in_own_process(*arguments: object) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", json.dumps(arguments)]
    return json.loads(subprocess.check_output(command, text=True).splitlines()[-1])


def is_ours(name: str) -> bool:
    return name in OURS or name.startswith("bars")


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
    parser.add_argument("--no-cold", action="store_true", help="leave out the first barcode of a new process")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(*json.loads(options.child))))
        return
    names = [n for n in options.only if all(map(find_spec, NEEDS.get(n.split(", ")[0], [])))]
    print("not installed:", ", ".join(sorted(set(options.only) - set(names))) or "none")
    rows = []
    if not options.no_cold:
        rows.append(cold(options.states, options.samples[0], options.width, options.k[0]))
        print(f"cold start: {rows[0]['seconds']:.2f} s")
    head = f"{'program':24}{'N':>6}{'k':>4}{'seconds':>10}{'cpu':>9}{'ratio':>8}{'peak GiB':>10}  H1 bars"
    print(head)
    for n, k in product(options.samples, options.k):
        base: dict[str, float] = {}
        for name in names:
            row = in_own_process(
                name, options.states, n, options.width, k, options.rounds if is_ours(name) else 1
            )
            kind, _, through = name.partition(", ")
            if kind == "bars":
                base[through] = row["cpu"]
            row["ratio"] = row["cpu"] / base[through] if through in base and name not in OURS else None
            rows.append(row)
            ratio = "" if row["ratio"] is None else f"{row['ratio']:.1f}"
            figures = f"{row['seconds']:10.3f}{row['cpu']:9.3f}{ratio:>8}{row['peak_gib']:10.2f}"
            print(f"{name:24}{n:6}{k:4}{figures}  {row['h1_bars']}", flush=True)
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
