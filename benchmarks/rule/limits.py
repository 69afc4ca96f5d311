"""Where topology goes wrong on SmolLM2: how spare each layer looks, and what it is worth.

    python benchmarks/rule/limits.py runs/rule/development/smollm2 --smollm2 runs/smollm2

In a folder that run.py filled. The model is evaluated without each layer alone, if that is not on disk yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
from run import Choices, evaluate_all, kept_clouds, targets
from table import DECIDING, Outcome
from targets import name_of

from lmms_topoprune.topology import Barcode, consistency, jaccard, zigzag_barcode

RULES = {
    "k5": "topology",
    "rank-mean-topology~mean-angle~influence": "the default",
    "block_influence": "block influence",
}
TOKENS = ("last", "mean")


def line(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def looks(barcodes: Sequence[Barcode]) -> list[str]:
    """For each layer the mean Jaccard of its input and output, and the median place (1 looks most spare)."""
    values = np.array([np.diagonal(jaccard(barcode, 1), 1) for barcode in barcodes])
    places = (-values).argsort(axis=1).argsort(axis=1) + 1
    return [f"{v:.2f} ({p:.0f})" for v, p in zip(values.mean(0), np.median(places, axis=0), strict=True)]


def ended(barcodes: Sequence[Barcode]) -> str:
    """Which share of the loops at its input a layer ends: over layers, the mean over seeds."""
    shares = 1 - np.mean([np.diagonal(consistency(barcode, 1), 1) for barcode in barcodes], axis=0)
    return f"median {np.median(shares):.2f}, {shares.min():.2f} to {shares.max():.2f}"


def agreement(looks_spare: np.ndarray, costs: np.ndarray) -> float:
    """Spearman's correlation over the inner layers: 1 if the sparest-looking layer costs least, and so on."""
    ranks = [values[1:-1].argsort().argsort() for values in (looks_spare, -costs)]
    return float(np.corrcoef(ranks)[0, 1])


def perplexity(outcome: Outcome, layers: Sequence[int]) -> float:
    """Geometric mean over the texts."""
    units = outcome.units[name_of(layers)]
    return float(np.exp(np.mean([units[f"nll {text}"].mean() for text in outcome.about["texts"]])))


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
@click.option("--smollm2", type=click.Path(path_type=Path, exists=True), required=True)
def main(folder: Path, smollm2: Path) -> None:
    """Print a table of the layers, and what topology drops."""
    (target,) = targets(folder.parent.name, smollm2, {}, "smollm2")
    alone: Choices = {f"alone {1 / target.layers} {layer}": [layer] for layer in range(target.layers)}
    evaluate_all(target, folder, alone)
    outcome = Outcome(folder)
    seeds = sorted(outcome.choices["k5", DECIDING[0]])
    clouds = [found for seed in seeds if (found := kept_clouds(target, seed, folder))]
    barcodes = {t: [zigzag_barcode(c.tokens[t], k=5, dimensions=(1,)) for c in clouds] for t in TOKENS}
    spare = [looks(barcodes[token]) for token in TOKENS]
    lengths = [
        np.mean([np.linalg.norm(c.tokens[token].mean(1), axis=1) for c in clouds], axis=0) for token in TOKENS
    ]

    click.echo(f"dense perplexity {perplexity(outcome, []):.1f}; {len(clouds)} seeds, k = 5\n")
    dropped = [f"{name} drops it" for name in RULES.values()]
    click.echo(line("layer", *(f"J, {token} (place)" for token in TOKENS), "perplexity without it", *dropped))
    click.echo(line(*["---:"] * (4 + len(dropped))))
    sets = {rule: [s for c in DECIDING for s in outcome.choices[rule, c].values()] for rule in RULES}
    for layer in range(target.layers):
        counts = [f"{sum(layer in s for s in found)} of {len(found)}" for found in sets.values()]
        click.echo(
            line(layer, spare[0][layer], spare[1][layer], f"{perplexity(outcome, [layer]):.1f}", *counts)
        )

    costs = np.array([perplexity(outcome, [layer]) for layer in range(target.layers)])
    views = {f"J, {t}": [np.diagonal(jaccard(b, 1), 1) for b in barcodes[t]] for t in TOKENS}
    views |= {f"angle, {t}": [np.diagonal(c.angle(t), 1) for c in clouds] for t in TOKENS}
    views["block influence"] = [c.steps for c in clouds]
    click.echo("\nrank correlation of looking spare and costing little perplexity, layers 1 to L - 2")
    for name, values in views.items():
        click.echo(f"{name}: {agreement(np.mean(values, axis=0), costs):.2f}")

    click.echo("\nlength of the centroid before each layer and at the end")
    for token, values in zip(TOKENS, lengths, strict=True):
        click.echo(f"{token}: " + " ".join(f"{value:.0f}" for value in values))
    for token in TOKENS:
        click.echo(f"share of the loops that a layer ends, {token}: {ended(barcodes[token])}")

    click.echo("\nwhat topology drops, seed by seed: layers (perplexity)")
    for sparsity in DECIDING:
        found = [
            f"{name_of(s)} ({perplexity(outcome, s):.3g})" for s in outcome.choices["k5", sparsity].values()
        ]
        click.echo(f"{sparsity:.0%}: " + ", ".join(found))


if __name__ == "__main__":
    main()
