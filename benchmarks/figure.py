"""The README's picture: what each criterion costs at each sparsity, from the results of a sweep.

    topoprune sweep --criteria topology_angle_influence,topology,cosine,block_influence,angular,random \\
        --sparsities 0.1,0.2,0.3,0.4,0.5,0.6 --limit 150 -o runs/figure
    python benchmarks/figure.py runs/figure docs/images/retention.svg
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt


def curves(folder: Path) -> dict[str, list[tuple[float, float, float, float]]]:
    """Criterion -> (sparsity, corrected retention, its interval's ends), all in percent, ascending."""
    found: dict[str, list[tuple[float, float, float, float]]] = {}
    for row in json.loads((folder / "comparison.json").read_text())["rows"]:
        if row["criterion"] == "dense":
            continue
        overall = row["cells"]["overall"]
        interval = overall["corrected_interval"]
        point = (row["sparsity"], overall["corrected"], interval["low"], interval["high"])
        found.setdefault(row["criterion"], []).append(tuple(100 * x for x in point))  # type: ignore[arg-type]
    return {name: sorted(points) for name, points in sorted(found.items())}


@click.command()
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
def main(folder: Path, target: Path) -> None:
    """Draw the comparison in FOLDER into TARGET (SVG)."""
    plt.rcParams.update({"svg.hashsalt": "topoprune", "font.size": 10})
    figure, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for name, points in curves(folder).items():
        x, y, low, high = zip(*points, strict=True)
        (line,) = ax.plot(
            x, y, marker="o", markersize=4, linewidth=2.2 if name.startswith("topology") else 1.2, label=name
        )
        ax.fill_between(x, low, high, color=line.get_color(), alpha=0.12, linewidth=0)
    ax.axhline(100, color="gray", linewidth=0.8)
    ax.axhline(0, color="gray", linewidth=0.8, linestyle=":")
    ax.set(xlabel="decoder layers dropped (%)", ylabel="kept over chance (%)")
    ax.legend(frameon=False)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, metadata={"Date": None})
    click.echo(f"{target}")


if __name__ == "__main__":
    main()
