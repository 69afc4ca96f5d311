"""Does it help to score again after each removal? One calibration pass a removed layer, instead of one.

    python benchmarks/rule/again.py runs/rule --smollm2 runs/smollm2
    python benchmarks/rule/table.py runs/rule/again --sparsities 0.1,0.2,0.3,0.4

On development data, after the choice of the default; for rules that choose single layers. NAME-again drops
the layer that costs least, calibrates and scores what is left, and so on.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import click
import numpy as np
from candidates import CANDIDATES, Clouds
from run import Choices, evaluate_all, evidence_and_clouds, targets
from table import DECIDING
from targets import Target

from lmms_topoprune._util import files
from lmms_topoprune.surgery import delete_layers

RULES = "rank,rank-mean-topology~mean-angle~influence"


def clouds_without(target: Target, seed: int, gone: list[int]) -> Clouds:
    """The states of the model as it is without these layers."""
    with delete_layers(target.model, gone) if gone else nullcontext():
        return evidence_and_clouds(target, seed, ("topology", "block_influence"))[1]


def choose_again(target: Target, seed: int, name: str, clouds: Clouds) -> Choices:
    """What the rule drops at each sparsity, scored once and scored again after each removal.

    `clouds` are the dense model's.
    """
    counts = {round(s * target.layers): s for s in DECIDING}
    found: Choices = {
        f"{name} {s} {seed}": list(CANDIDATES[name].layers(clouds, n)) for n, s in counts.items()
    }
    gone: list[int] = []
    while len(gone) < max(counts):
        if gone:
            clouds = clouds_without(target, seed, sorted(gone))
        left = [layer for layer in range(target.layers) if layer not in gone]
        steps = np.diagonal(CANDIDATES[name].similarity(clouds), 1)  # of each layer that is left
        gone.append(left[1 + int(np.argmax(steps[1:-1]))])  # the first and the last layer stay
        if len(gone) in counts:
            found[f"{name}-again {counts[len(gone)]} {seed}"] = sorted(gone)
    return found


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--smollm2", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--rules", default=RULES, show_default=True, help="Out of candidates.py, joined by commas.")
@click.option("--seeds", default=1, show_default=True, help="Ten minutes a rule and seed on one core.")
def main(folder: Path, smollm2: Path, rules: str, seeds: int) -> None:
    """Choose, evaluate, and write what table.py reads into FOLDER/again."""
    (target,) = targets("development", smollm2, {}, "smollm2")
    place = folder / "again" / target.name
    choices: Choices = {}
    for seed in range(seeds):
        dense = clouds_without(target, seed, [])
        for name in rules.split(","):
            choices |= choose_again(target, seed, name, dense)
            click.echo(f"{name}: layers chosen for seed {seed}")
    files.write_json(place / "choices.json", choices)
    files.write_json(place / "about.json", {"layers": target.layers, **target.facts})
    evaluate_all(target, place, choices)


if __name__ == "__main__":
    main()
