"""The runs of protocol-tokens.md on a decoder and texts, with every measurement kept and looked up again.

    python benchmarks/rule/smollm2.py runs/smollm2
    python research/tokens.py runs/smollm2 runs/tokens --texts anarchism,handbook --seeds 0

Passages to calibrate on come from the first half of a text's paragraphs, drawn by the seed; passages to judge
by from the second half, the same for all seeds. Printed is the perplexity over the dense model's, geometric
mean over texts, with trials and seconds.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from lmms_topoprune._util.cache import Cache
from lmms_topoprune.calibration import loss
from lmms_topoprune.calibration.loss import LossOracle, Text
from lmms_topoprune.calibration.samples import Sample
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.pipeline import Planner, proposals, trials
from lmms_topoprune.plan import format_layers, parse_layers

LENGTH, JUDGED = 64, 256
RULES: dict[str, Mapping[str, Any]] = {
    "zigzags": {"criterion": "zigzags"},
    "zigzags, k=10": {"criterion": "zigzags", "k": "10"},
    "zigzags, unprotected": {"criterion": "zigzags", "protect_massive": False},
    "intersections k=10, rank": {"criterion": "intersections"},
    "intersections k=10, path": {"criterion": "intersections", "selection": "path"},
    "intersections k=7+10+15, rank": {"criterion": "intersections", "k": "7+10+15"},
    "unions k=10, rank": {"criterion": "unions"},
    "unions k=7+10+15, rank": {"criterion": "unions", "k": "7+10+15"},
    "topology (samples), path": {"criterion": "topology"},
    "topology_angle_influence (samples)": {"criterion": "topology_angle_influence"},
    "topology_angle_influence (tokens)": {
        "criterion": "topology_angle_influence", "points": "tokens", "metric": "cosine", "k": "10",
    },
    "block_influence": {"criterion": "block_influence"},
    "block_influence, protected": {"criterion": "block_influence", "protect_massive": True},
    "angular": {"criterion": "angular"},
    "cosine": {"criterion": "cosine"},
    "relative_magnitude": {"criterion": "relative_magnitude"},
    "knn_overlap": {"criterion": "knn_overlap"},
    "cka": {"criterion": "cka"},
}  # fmt: skip
TOPOLOGY = ("zigzags", "intersections", "unions", "topology_angle_influence")


def passages(tokenizer: Any, paragraphs: Iterable[str], length: int, count: int) -> list[str]:
    """Pieces of `length` tokens, one a paragraph that is long enough."""
    found: list[str] = []
    for text in paragraphs:
        offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
        if len(offsets) >= length:
            found.append(text[: offsets[length - 1][1]])
        if len(found) == count:
            break
    return found


def joined(paragraphs: Sequence[str], size: int = 2000) -> list[str]:
    """Paragraphs in a row, at least `size` characters each."""
    found = [""]
    for text in paragraphs:
        found[-1] += text + "\n\n"
        if len(found[-1]) >= size:
            found.append("")
    return found[:-1]


class Bench:
    """One model on some texts.

    Args:
        folder: holds model/ and texts/.
        out: where measurements are kept.
        texts: names of texts.
        judged: passages that each text is judged by.
        samples: to calibrate on, of all texts together.
        tried: of these, how many a trial reads.
    """

    def __init__(
        self, folder: Path, out: Path, texts: Sequence[str], judged: int, samples: int, tried: int
    ) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder / "model")
        self.model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32).eval()
        self.paragraphs = {t: json.loads((folder / "texts" / f"{t}.json").read_text()) for t in texts}
        self.samples, self.out = samples, out
        self.cache = Cache(out / "cache")
        self.facts = [str(self.model.config.to_dict()), list(texts), judged, JUDGED]
        loss.MAX_TEXTS = trials.MAX_TEXTS = tried
        self.oracle = LossOracle(self.model, tuple(self._texts(judged)))

    def _texts(self, judged: int) -> Iterable[Text]:
        """One passage each."""
        for paragraphs in self.paragraphs.values():
            second = joined(paragraphs[len(paragraphs) // 2 :])
            for passage in passages(self.tokenizer, second, JUDGED, judged):
                inputs = self.tokenizer(passage, return_tensors="pt")
                yield Text(inputs, inputs["input_ids"].clone())

    def planner(self, seed: int) -> Planner:
        """With this seed's calibration samples, of all texts in turn."""
        found = []
        for text, paragraphs in self.paragraphs.items():
            first = paragraphs[: len(paragraphs) // 2]
            order = random.Random(f"{text}-{seed}").sample(first, len(first))
            found.append(passages(self.tokenizer, order, LENGTH, self.samples // len(self.paragraphs)))
        samples = [Sample(piece) for pieces in zip(*found, strict=True) for piece in pieces]
        return Planner("bench", self.model, self.tokenizer, samples=samples, cache=self.cache)

    def judge(self, sets: Iterable[tuple[int, ...]]) -> dict[tuple[int, ...], list[float]]:
        """Set of missing layers -> loss of a token of each passage; kept set by set."""
        found = {}
        for layers in dict.fromkeys(sets):
            key = [*self.facts, format_layers(layers)]
            losses = self.cache.get(key)
            if losses is None:
                (parts,) = self.oracle.predictions_without([layers])
                losses = [part.mean for part in parts]
                self.cache.put(key, losses)
            found[layers] = losses
        return found

    def dense(self) -> list[float]:
        key = [*self.facts, "dense"]
        losses = self.cache.get(key)
        if losses is None:
            losses = [part.mean for part in self.oracle.predictions()]
            self.cache.put(key, losses)
        return list(losses)


def plans(bench: Bench, seed: int, sparsities: Sequence[float], count: int) -> list[dict[str, Any]]:
    """What each rule drops, and what each number of trials settles on, at one seed."""
    planner, rows = bench.planner(seed), []
    asked = [(rule, sparsity) for rule in RULES for sparsity in sparsities]
    shared = {"samples": bench.samples, "seed": seed, "point_count": 1024}
    wanted = [PruningOptions(**{**shared, **RULES[rule], "sparsity": share}) for rule, share in asked]
    for (rule, share), plan in zip(asked, planner.plans(wanted), strict=True):
        seconds = sum(stage["seconds"] for stage in plan.stages.values())
        rows.append(row(rule, share, seed, plan.dropped, 0, seconds, plan.parameters.get("massive", "")))
    if not count:
        return rows
    for share in sparsities:
        for name, among in (("all", proposals.PROPOSERS), ("without topology", _without_topology())):
            start, own = time.perf_counter(), "zigzags" if name == "all" else "block_influence"
            plan = _settled(
                planner, PruningOptions(criterion=own, sparsity=share, trials=count, **shared), among
            )
            seconds = time.perf_counter() - start
            for spent in sorted({n for n in (8, 16, 32, 64, 128, count) if n <= count}):
                best = min(plan.trials[:spent], key=lambda trial: trial["loss"])
                rows.append(
                    row(
                        f"{spent} trials, {name}",
                        share,
                        seed,
                        tuple(best["dropped"]),
                        spent,
                        seconds,
                        best["by"],
                    )
                )
    return rows


def _without_topology() -> list[tuple[str, Mapping[str, str]]]:
    return [one for one in proposals.PROPOSERS if one[0] not in TOPOLOGY]


def _settled(
    planner: Planner, options: PruningOptions, among: Sequence[tuple[str, Mapping[str, str]]]
) -> Any:
    """A plan whose proposals come from these."""
    own = proposals.proposers
    from lmms_topoprune.pipeline import planner as module

    module.proposers = lambda asked: own(asked, among)
    try:
        return planner.plan(options)
    finally:
        module.proposers = own


def row(
    rule: str, sparsity: float, seed: int, dropped: Any, spent: int, seconds: float, note: str
) -> dict[str, Any]:
    return {
        "rule": rule, "sparsity": sparsity, "seed": seed, "dropped": format_layers(dropped),
        "trials": spent, "seconds": round(seconds, 1), "note": note,
    }  # fmt: skip


def table(rows: Sequence[Mapping[str, Any]], losses: Mapping[str, Sequence[float]], texts: int) -> str:
    """Markdown: a rule a line, its perplexity over the dense one's at every sparsity, and its layers."""
    shares = sorted({r["sparsity"] for r in rows})
    lines = ["| rule | " + " | ".join(f"{100 * s:g} %" for s in shares) + " | layers |"]
    lines.append("|---|" + "---:|" * len(shares) + "---|")
    for rule in dict.fromkeys(r["rule"] for r in rows):
        cells, layers = [], []
        for share in shares:
            mine = [r for r in rows if (r["rule"], r["sparsity"]) == (rule, share)]
            rises = [np.mean(np.subtract(losses[r["dropped"]], losses["dense"])) for r in mine]
            cells.append(f"{np.exp(np.mean(rises)):.2f}")
            layers.append(mine[0]["dropped"])
        lines.append(f"| {rule} | " + " | ".join(cells) + " | " + "; ".join(layers) + " |")
    return "\n".join(lines)


@click.command()
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--texts", required=True, help="Names of texts, joined by commas.")
@click.option("--seeds", default="0", show_default=True)
@click.option("--sparsities", default="0.1,0.2,0.3", show_default=True)
@click.option("--trials", "count", default=32, show_default=True)
@click.option("--judged", default=4, show_default=True, help="Passages a text is judged by.")
@click.option("--samples", default=96, show_default=True, help="Passages to calibrate on.")
@click.option("--tried", default=32, show_default=True, help="Of these, how many a trial reads.")
def main(
    folder: Path,
    out: Path,
    texts: str,
    seeds: str,
    sparsities: str,
    count: int,
    judged: int,
    samples: int,
    tried: int,
) -> None:
    """Run, or go on with, one part of the protocol; OUT keeps all that was measured."""
    out.mkdir(parents=True, exist_ok=True)
    names, shares = texts.split(","), [float(s) for s in sparsities.split(",")]
    bench, rows = Bench(folder, out, names, judged, samples, tried), []
    for seed in map(int, seeds.split(",")):
        rows += plans(bench, seed, shares, count)
        click.echo(f"{time.strftime('%X')} seed {seed}: {len({r['dropped'] for r in rows})} sets of layers")
    found = {"dense": bench.dense()}
    for text in dict.fromkeys(r["dropped"] for r in rows):
        found[text] = bench.judge([parse_layers(text)])[parse_layers(text)]
    told = {
        "texts": names,
        "judged": judged,
        "samples": samples,
        "tried": tried,
        "rows": rows,
        "losses": found,
    }
    (out / "rows.json").write_text(json.dumps(told, indent=1))
    click.echo(table(rows, found, len(names)))


if __name__ == "__main__":
    main()
