"""What healing brings, apart from criterion and repair: pruned, repaired, healed, repaired then healed.

    python benchmarks/heal.py runs/smollm2 --sparsities 0.2,0.3,0.4 -o runs/heal/text.json

Printed is the perplexity of a language model in the folder that benchmarks/rule/smollm2.py makes, on other
passages of the texts that were trained on and on texts that were not. It goes on where it was interrupted, in
the middle of a healing too. On lmms-eval tasks `topoprune sweep --heal` makes the same comparison.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from repair import criteria_option, listed, passage_losses, split

from lmms_topoprune.comparison.statistics import percentile_interval
from lmms_topoprune.heal_options import HealingOptions
from lmms_topoprune.plan import format_layers

TRAINED, UNSEEN = ("anarchism", "handbook"), ("jargon", "reference")
"""Texts whose passages are trained on, and texts of which nothing is."""


@click.command()
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@criteria_option
@click.option("--sparsities", default="0.2,0.3,0.4", show_default=True)
@click.option("--seeds", default="0", show_default=True, help="Of samples, order and first updates.")
@click.option("--heal", default="steps=200", show_default=True, help="As --heal of topoprune sweep.")
@click.option("--starts", default="pruned,repaired", show_default=True, help="What is healed.")
@click.option("--passages", default=256, show_default=True, help="Samples of the training set.")
@click.option("--tokens", default=64, show_default=True, help="Tokens of a sample.")
@click.option("--evaluated", default=16, show_default=True, help="Passages of each text to evaluate on.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="A JSON file.")
def main(folder: Path, output: Path, **asked: Any) -> None:
    """Perplexity of each model on passages of texts trained on and not, with what the healing took."""
    bench = _Texts.load(folder, output, asked["passages"], asked["tokens"], asked["evaluated"])
    wanted = [
        (criterion, float(sparsity), int(seed))
        for seed in asked["seeds"].split(",")
        for sparsity in asked["sparsities"].split(",")
        for criterion in listed(asked["criteria"])
    ]
    bench.measure("dense", None, "none", None, 0)
    for criterion, sparsity, seed in wanted:
        plan = bench.plan(criterion, sparsity, seed)
        for repair in ("none", "linear"):
            bench.measure(criterion, plan, repair, None, seed)
        for start in asked["starts"].split(","):
            repair = "none" if start == "pruned" else "linear"
            bench.measure(criterion, plan, repair, HealingOptions.parse(asked["heal"]), seed)
    found = json.loads(output.read_text())
    click.echo(table(found) + "\n\n" + summary(found))


class _Texts:
    """A language model, its samples, and the figures so far."""

    def __init__(self, model: Any, tokenizer: Any, output: Path, ids: torch.Tensor, passages: Any) -> None:
        from lmms_topoprune.calibration.samples import Sample

        self.model, self.tokenizer, self.output = model, tokenizer, output
        self.samples, self.passages = [Sample(tokenizer.decode(row)) for row in ids], passages
        self.batches = [{"input_ids": rows} for rows in ids[:128].split(8)]
        self.found: dict[str, Any] = json.loads(output.read_text()) if output.exists() else {}

    @classmethod
    def load(cls, folder: Path, output: Path, count: int, tokens: int, evaluated: int) -> _Texts:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype="float32").eval()
        tokenizer = AutoTokenizer.from_pretrained(folder / "model")
        parts = {name: split(folder, name, tokenizer, evaluated) for name in (*TRAINED, *UNSEEN)}
        rows = [
            row
            for rows in zip(*(parts[name][1] for name in TRAINED), strict=False)
            for passage in rows
            for row in passage.split(tokens)
        ]
        rows = [row for row in rows if len(row) == tokens][:count]
        passages = {
            "trained": torch.cat([parts[name][0] for name in TRAINED]),
            "unseen": torch.cat([parts[name][0] for name in UNSEEN]),
        }
        return cls(model, tokenizer, output, torch.stack(rows), passages)

    def plan(self, criterion: str, sparsity: float, seed: int) -> Any:
        """The plan of a criterion, from the first 128 samples; remembered by the cache."""
        from lmms_topoprune.options import PruningOptions
        from lmms_topoprune.pipeline import make_plan

        options = PruningOptions(sparsity, criterion=criterion, samples=128, seed=seed)
        given = {"name": "smollm2", "samples": self.samples[:128], "progress": False}
        return make_plan(self.model, self.tokenizer, options, **given)

    def measure(self, criterion: str, plan: Any, repair: str, healing: Any, seed: int) -> None:
        """Carry a plan out, note the losses of the passages, and write the file."""
        from lmms_topoprune._util import files
        from lmms_topoprune.heal.healing import heal
        from lmms_topoprune.repair.repaired_deletion import repair as repaired

        layers = format_layers(plan.dropped) if plan else "none"
        key = f"{layers} {repair} {healing.text if healing else 'none'} seed {seed}"
        entry = self.found.setdefault(key, {"criteria": []})
        name = f"{criterion} {plan.sparsity:.2f}" if plan else "dense"
        if name not in entry["criteria"]:
            entry["criteria"].append(name)
        if "trained" not in entry:
            checkpoint = self.output.with_name(f"{files.digest([str(self.output), key])}.healing")
            start = time.perf_counter()
            with repaired(self.model, self.batches, plan.dropped if plan else (), repair) as deletion:
                if healing:
                    given = {"seed": seed, "checkpoint": checkpoint, "key": key, "tell": _say}
                    entry |= heal(deletion, self.tokenizer, self.samples, healing, **given)
                entry["minutes"] = (time.perf_counter() - start) / 60
                entry |= {kind: passage_losses(self.model, ids) for kind, ids in self.passages.items()}
            shutil.rmtree(checkpoint, ignore_errors=True)
        files.write_json(self.output, self.found)
        click.echo(f"{key}: " + ", ".join(f"{k} {perplexity(entry[k]):.1f}" for k in ("trained", "unseen")))


def _say(step: int, loss: float, tokens: int) -> None:
    click.echo(f"  step {step} loss {loss:.3f} tokens {tokens}", err=True)


def perplexity(losses: Sequence[float]) -> float:
    return math.exp(float(np.mean(losses)))


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """One line a model: perplexity on other passages of texts trained on / on texts that were not."""
    lines = [
        "| dropped by | layers | repair | healing | seed | trained texts | other texts | tokens | minutes |",
        "|---|---|---|---|---|---:|---:|---:|---:|",
    ]
    for key, entry in found.items():
        layers, repair, healing, _, seed = key.split(" ")
        figures = [f"{perplexity(entry[kind]):.1f}" for kind in ("trained", "unseen")]
        spent = [f"{entry.get('tokens', 0):.0f}", f"{entry['minutes']:.1f}"]
        lines.append(
            f"| {', '.join(entry['criteria'])} | "
            + " | ".join([layers, repair, healing, seed, *figures, *spent])
            + " |"
        )
    return "\n".join(lines)


def summary(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Perplexity over the dense one's, a line a criterion, repair and healing.

    Resampled over seeds and passages at once.
    """
    rng, dense = np.random.default_rng(0), next(v for k, v in found.items() if k.startswith("none none none"))
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for key, entry in found.items():
        _, repair, healing, _, _ = key.split(" ")
        for criterion in entry["criteria"]:
            groups.setdefault(f"{criterion} | {repair} | {healing}", []).append(entry)
    lines = [
        "| dropped by | repair | healing | seeds | trained texts | other texts |",
        "|---|---|---|---:|---:|---:|",
    ]
    for name, entries in sorted(groups.items()):
        cells = []
        for kind in ("trained", "unseen"):
            gaps = np.array([entry[kind] for entry in entries]) - np.array(dense[kind])  # (seeds, passages)
            seeds, passages = (rng.integers(size, size=(2000, size)) for size in gaps.shape)
            means = np.exp(gaps[seeds[:, :, None], passages[:, None]].mean((1, 2)))
            ends = percentile_interval(means)
            cells.append(f"{math.exp(gaps.mean()):.2f} ({ends.low:.2f} to {ends.high:.2f})")
        lines.append(f"| {name} | {len(entries)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
