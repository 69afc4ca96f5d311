"""What repair brings, apart from the criterion: every criterion with no repair, linear and rescale.

    python benchmarks/repair.py tasks --criteria all -o runs/repair
    python benchmarks/repair.py text runs/smollm2 --criteria all --sparsities 0.2,0.3

`tasks` sweeps lmms-eval tasks and prints the share of the dense score that is kept. `text` prints the
perplexity of a language model in the folder that benchmarks/rule/smollm2.py makes. Both write JSON and go on
where they were interrupted.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from lmms_topoprune import registry
from lmms_topoprune.comparison.statistics import Interval
from lmms_topoprune.plan import format_layers

REPAIRS = ("none", "linear", "rescale")
TEXTS = ("anarchism", "handbook")
LENGTH = 256  # tokens of a passage


def criteria_option(function: Any) -> Any:
    shown = "topology_angle_influence,cosine,block_influence"
    return click.option(
        "--criteria", default=shown, show_default=True, help='Names joined by commas; "all" for every one.'
    )(function)


def listed(criteria: str) -> list[str]:
    every = [name for name, criterion in registry.criteria().items() if criterion.score]
    return [name for part in criteria.split(",") for name in (every if part == "all" else [part])]


@click.group()
def main() -> None:
    """Tables of repaired models."""


@main.command()
@criteria_option
@click.option("--sparsities", default="0.3", show_default=True)
@click.option("--seeds", default="0", show_default=True)
@click.option("--samples", default=512, show_default=True, help="Calibration samples.")
@click.option("--tasks", default="topoprune", show_default=True)
@click.option("--limit", type=int, help="Questions a task instead of all.")
@click.option("--pretrained", default="embedded", show_default=True)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path))
def tasks(
    criteria: str,
    sparsities: str,
    seeds: str,
    samples: int,
    tasks: str,
    limit: int | None,
    pretrained: str,
    output: Path,
) -> None:
    """What is kept over chance (percent, 95 % interval), and what a repair changes (points of the score)."""
    from lmms_topoprune.comparison.side_by_side import compare
    from lmms_topoprune.report.tables import save
    from lmms_topoprune.sweep.recipe import Recipe, run_sweep
    from lmms_topoprune.sweep.run_folders import distinct

    recipe = Recipe(
        models=[{"model": "llava", "pretrained": pretrained}],
        criteria=listed(criteria),
        sparsities=[float(part) for part in listed(sparsities)],
        seeds=[int(part) for part in listed(seeds)],
        repairs=REPAIRS,
        tasks=listed(tasks),
        limit=limit,
        options={"samples": samples},
    )
    runs = run_sweep(recipe, output)
    runs = distinct(runs)
    comparison = compare(runs)
    save(comparison, output / "comparison.json")
    kept: Found = defaultdict(lambda: defaultdict(list))
    labels: Found = defaultdict(lambda: defaultdict(list))
    for row in comparison.rows:
        if row.label != comparison.dense:
            criterion, _, repair = row.criterion.partition(" repair=")
            cell = row.overall
            labels[criterion, row.sparsity][repair or "none"].append(row.label)
            kept[criterion, row.sparsity][repair or "none"].append(
                f"{100 * cell.corrected:.1f} ({shown(cell.corrected_interval)})"
            )
    show(kept, REPAIRS)
    changes: Found = defaultdict(lambda: defaultdict(list))
    for key, found in labels.items():
        for number, plain in enumerate(found["none"]):
            pairs = {name: found[name][number] for name in REPAIRS[1:]}
            wanted = {comparison.dense, plain, *pairs.values()}
            rows = compare([r for r in runs if r.label in wanted], reference=plain).rows
            cells = {row.label: row.overall for row in rows}
            for name, label in pairs.items():
                change = cells[label].difference, shown(cells[label].difference_interval)
                changes[key][name].append(f"{100 * change[0]:+.1f} ({change[1]})")
    click.echo("\nminus the same without repair, points of the score")
    show(changes, REPAIRS[1:])


Found = dict[tuple[str, float], dict[str, list[str]]]
"""(criterion, share of layers dropped) -> repair -> one text a seed."""


def shown(interval: Interval) -> str:
    return f"{100 * interval.low:.1f} to {100 * interval.high:.1f}"


def show(found: Found, columns: Sequence[str]) -> None:
    click.echo("\n| criterion | layers dropped | " + " | ".join(columns) + " |")
    click.echo("|---|---:|" + "---:|" * len(columns))
    for (criterion, sparsity), cells in sorted(found.items()):
        texts = " | ".join("; ".join(cells.get(name, [])) for name in columns)
        click.echo(f"| {criterion} | {100 * sparsity:.0f} % | {texts} |")


@main.command()
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@criteria_option
@click.option("--sparsities", default="0.2,0.3", show_default=True)
@click.option("--passages", default=64, show_default=True, help="Calibration passages of 256 tokens.")
@click.option("--evaluated", default=16, show_default=True, help="Passages of each text to evaluate on.")
@click.option("--ridges", default="", help="Further ridges of the linear map, joined by commas.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Keep the figures in this JSON file.")
def text(
    folder: Path,
    criteria: str,
    sparsities: str,
    passages: int,
    evaluated: int,
    ridges: str,
    output: Path | None,
) -> None:
    """Perplexity, and what a repair makes of it (95 % interval, paired by passage).

    Plans and repairs see other passages of the same texts than the evaluation.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from lmms_topoprune._util import files
    from lmms_topoprune.calibration.samples import Sample
    from lmms_topoprune.options import PruningOptions
    from lmms_topoprune.pipeline import Planner
    from lmms_topoprune.repair.linear import RIDGE
    from lmms_topoprune.repair.repaired_deletion import repair

    columns = {name: (name, RIDGE) for name in REPAIRS}
    columns |= {f"linear {ridge}": ("linear", float(ridge)) for ridge in ridges.split(",") if ridge}
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype="float32").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    held_out, rest = zip(*(split(folder, name, tokenizer, evaluated) for name in TEXTS), strict=True)
    calibration = torch.cat([ids[: passages // len(TEXTS)] for ids in rest])
    batches = [{"input_ids": ids} for ids in calibration.split(8)]
    taken = zip(*(ids[:256] for ids in rest), strict=True)  # in turn, since some criteria read the first 64
    samples = [Sample(tokenizer.decode(row[:40])) for rows in taken for row in rows]
    losses: dict[str, list[float]] = json.loads(output.read_text()) if output and output.exists() else {}
    losses.setdefault("dense", passage_losses(model, torch.cat(held_out)))
    click.echo(f"dense {math.exp(np.mean(losses['dense'])):.2f}")
    found: Found = defaultdict(lambda: defaultdict(list))
    alike: dict[tuple[str, float], list[str]] = defaultdict(list)  # criteria that drop the same layers
    wanted = {
        (criterion, sparsity): PruningOptions(layers=criterion)  # such as 18-23, whatever the sparsity
        if criterion[0].isdigit()
        else PruningOptions(sparsity, criterion=criterion, calibration="passages:")
        for sparsity in map(float, sparsities.split(","))
        for criterion in listed(criteria)
    }
    readers = {"passages": lambda _, count, seed, strict: samples[:count]}
    plans = Planner(str(folder), model, tokenizer, readers=readers).plans(list(wanted.values()))
    for (criterion, sparsity), plan in zip(wanted, plans, strict=True):
        layers = format_layers(plan.dropped)
        alike[layers, sparsity].append(criterion)
        for name, (method, ridge) in columns.items():
            if (key := f"{layers} {name}") not in losses:
                with repair(model, batches, plan.dropped, method, ridge=ridge):
                    losses[key] = passage_losses(model, torch.cat(held_out))
            if output:
                files.write_json(output, losses)
        click.echo(f"{criterion} {sparsity}: {layers}")
    for (layers, sparsity), names in alike.items():
        row = found[", ".join(names), sparsity]
        for name in columns:
            after = np.array(losses[f"{layers} {name}"])
            row[name] = [f"{math.exp(after.mean()):.4g}"]
            if name != "none":
                row[f"{name} / none"] = [ratio(after - losses[f"{layers} none"])]
    show(found, [*columns, *(f"{name} / none" for name in columns if name != "none")])


def ratio(changes: np.ndarray, draws: int = 10_000) -> str:
    """exp of the mean change of a passage's loss, passages drawn anew."""
    drawn = np.random.default_rng(0).integers(len(changes), size=(draws, len(changes)))
    low, high = np.exp(np.quantile(changes[drawn].mean(1), [0.025, 0.975]))
    return f"{math.exp(changes.mean()):.2f} [{low:.2f}, {high:.2f}]"


def split(folder: Path, name: str, tokenizer: Any, evaluated: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Passages of a text (N, LENGTH): those to evaluate on, and the following ones."""
    paragraphs = json.loads((folder / "texts" / f"{name}.json").read_text())
    ids = tokenizer(" ".join(paragraphs[:2000]))["input_ids"]
    passages = torch.tensor(ids[: len(ids) // LENGTH * LENGTH]).view(-1, LENGTH)
    return passages[:evaluated], passages[evaluated:]


@torch.no_grad()
def passage_losses(model: Any, passages: torch.Tensor) -> list[float]:
    """Mean loss of a token, for each passage (N, T)."""
    losses = []
    for ids in passages.split(4):
        logits = model(ids).logits[:, :-1].transpose(1, 2)
        losses.append(torch.nn.functional.cross_entropy(logits, ids[:, 1:], reduction="none").mean(1))
    return torch.cat(losses).tolist()


if __name__ == "__main__":
    main()
