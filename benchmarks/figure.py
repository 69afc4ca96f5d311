"""The README's picture and its table: quality kept over chance against measured speed-up, a panel a model.

    topoprune sweep --criteria topology_angle_influence,topology,block_influence,uniform,random \\
        --sparsities 0.1,0.2,0.3,0.4,0.5 --seeds 0,1,2 --limit 150 -o runs/figure/embedded
    topoprune sweep --pretrained runs/lvlm --criteria ... -o runs/figure/lvlm
    python benchmarks/figure.py "embedded=runs/figure/embedded" "pretrained=runs/figure/lvlm" \\
        --picture docs/images/front.svg --table runs/figure/table.md

Run the sweeps on a quiet machine: the speed-up is measured.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click
import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

from lmms_topoprune.comparison.columns import interval, percent
from lmms_topoprune.comparison.side_by_side import compare
from lmms_topoprune.report.figures import COLORS, MARKS
from lmms_topoprune.report.groups import Group, by_criterion, groups
from lmms_topoprune.report.speed import Speed, speeds
from lmms_topoprune.sweep.run_folders import read_runs

FLOOR = "random"
HEIGHT = 3.6  # inches
LABEL = 0.05  # least distance of two labels, in parts of the height


def measured(folder: Path) -> tuple[list[Group], dict[str, Speed]]:
    """Every criterion and number of layers of a sweep, with the speed-up of each."""
    runs = read_runs([folder])
    found = groups(compare(runs, every_seed=True))
    return found, speeds(found, runs)


def panel(ax: Any, name: str, found: list[Group], speed: dict[str, Speed], colors: dict[str, str]) -> None:
    """Draw one model: a line a criterion, its intervals, and its name at the end of the line."""
    ax.axhline(100, color="gray", linewidth=0.8, linestyle="--")
    ax.axhline(0, color="gray", linewidth=0.8, linestyle=":")
    ends: list[tuple[float, float, str]] = []
    for number, (criterion, own) in enumerate(by_criterion(found).items()):
        shown = [g for g in own if g.name in speed and math.isfinite(g.kept)]
        if not shown:
            continue
        x, y = [speed[g.name].value for g in shown], [100 * g.kept for g in shown]
        ends.append((y[-1], x[-1], criterion))
        style = {"linestyle": ":"} if criterion == FLOOR else {}
        ax.plot(x, y, marker=MARKS[number % len(MARKS)], ms=4, lw=1.4, color=colors[criterion], **style)
        for group, left in zip(shown, x, strict=True):
            kept = group.interval
            if math.isfinite(kept.low):
                ax.plot([left, left], [100 * kept.low, 100 * kept.high], color=colors[criterion], lw=0.8)
    ax.set(title=name, xlabel="times as fast as dense, measured", ylabel="kept over chance (%)")
    label(ax, ends, colors)
    ax.spines[["top", "right"]].set_visible(False)


def label(ax: Any, ends: list[tuple[float, float, str]], colors: dict[str, str]) -> None:
    """Names at the right ends of the lines, moved apart where they would touch."""
    low, high = ax.get_ylim()
    place = -math.inf
    right = max((x for _, x, _ in ends), default=1.0)
    for y, _, criterion in sorted(ends):
        place = max(y, place + LABEL * (high - low))
        ax.annotate(criterion, (right, place), (6, 0), textcoords="offset points", va="center", fontsize=8,
                    color=colors[criterion], annotation_clip=False)  # fmt: skip


def table(name: str, found: list[Group], speed: dict[str, Speed]) -> str:
    """Markdown: a row a criterion, a column a share of layers; percent kept over chance and its interval."""
    counts = sorted({group.dropped for group in found})
    lines = [f"| {name} | " + " | ".join(f"{count} layers" for count in counts) + " |"]
    lines.append("|---|" + "---:|" * len(counts))
    for criterion, own in by_criterion(found).items():
        cells = {g.dropped: f"{percent(g.kept)} ({interval(g.interval)})" for g in own}
        lines.append(f"| `{criterion}` | " + " | ".join(cells.get(count, "") for count in counts) + " |")
    fast = {g.dropped: str(speed[g.name]) for g in found if g.name in speed and g.criterion != FLOOR}
    lines.append("| speed-up | " + " | ".join(fast.get(count, "") for count in counts) + " |")
    return "\n".join(lines) + "\n"


@click.command(help=__doc__)
@click.argument("sweeps", nargs=-1, required=True, metavar="NAME=FOLDER ...")
@click.option("--picture", type=click.Path(path_type=Path), required=True, help="Write the SVG here.")
@click.option("--table", "tables", type=click.Path(path_type=Path), help="Write the Markdown tables here.")
def main(sweeps: tuple[str, ...], picture: Path, tables: Path | None) -> None:
    named = [sweep.partition("=")[::2] for sweep in sweeps]
    found = {name: measured(Path(folder)) for name, folder in named}
    names = sorted({group.criterion for own, _ in found.values() for group in own})
    colors = {name: COLORS[number % len(COLORS)] for number, name in enumerate(names)} | {FLOOR: "gray"}
    plt.rcParams.update({"svg.hashsalt": "topoprune", "font.size": 9})
    figure, axes = plt.subplots(
        1, len(found), figsize=(5 * len(found), HEIGHT), layout="constrained", squeeze=False
    )
    for ax, (name, (own, speed)) in zip(axes[0], found.items(), strict=True):
        panel(ax, name, own, speed, colors)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, metadata={"Date": None})
    text = "\n".join(table(name, *one) for name, one in found.items())
    click.echo(text)
    if tables:
        tables.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
