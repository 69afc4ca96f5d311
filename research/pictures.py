"""The pictures of docs/results.md that are drawn from tables of these notes.

python research/pictures.py docs/images
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import click
import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

NOTES = Path(__file__).parent
COLORS = {
    "topology_angle_influence": "#0072b2",
    "greedy": "#22252b",
    "block_influence": "#c04a00",
    "angular": "#007a5a",
    "topology": "#a3487f",
    "random": "#868c98",
}
SHARES = (10, 20, 30, 40)


def table(file: str, heading: str, section: str = "#") -> list[list[str]]:
    """The cells of the first table below `section` whose first line begins with `heading`."""
    lines = iter((NOTES / file).read_text(encoding="utf-8").splitlines())
    next(line for line in lines if line.startswith(section))
    next(line for line in lines if line.strip().startswith(heading))
    next(lines)
    rows = itertools.takewhile(lambda line: line.startswith("|"), (line.strip() for line in lines))
    return [[cell.strip("* ") for cell in row.strip("|").split("|")] for row in rows]


def named(rows: list[list[str]]) -> dict[str, list[str]]:
    """The same by the first word of a row's first cell."""
    return {re.findall(r"\w+", name)[0]: cells for name, *cells in reversed(rows)}


def confirmation(ax: plt.Axes) -> None:
    """Mean of language and vision by sparsity."""
    rows = table("2026-11-25-results.md", "| rule | score | 10% | 20% | 30% | 40% | 50% | 60% | embedded")
    lines = {name: [float(cell) for cell in named(rows)[name][1:5]] for name in COLORS}
    place = -1.0
    for name, values in sorted(lines.items(), key=lambda line: line[1][-1]):
        style = ":" if name == "random" else "-"
        ax.plot(SHARES, values, style, marker="o", ms=4, color=COLORS[name])
        place = max(values[-1], place + 0.06)
        ax.annotate(name, (SHARES[-1], place), (8, 0), textcoords="offset points", va="center",
                    color=COLORS[name])  # fmt: skip
    ax.set(xlabel="layers dropped (%)", ylabel="score, dense = 1", xticks=SHARES, ylim=(0, 1))


def repair(ax: plt.Axes) -> None:
    """Perplexity without and with the linear map, every criterion at 30 %."""
    rows = table("2026-11-28-repair.md", "| layers dropped by | none | linear | rescale | linear / none")
    pairs = sorted(((float(none), float(mapped), name) for name, none, mapped, *_ in rows), reverse=True)
    for place, (none, mapped, _) in enumerate(pairs):
        ax.plot([none, mapped], [place, place], color="#c9ccd1", lw=2, zorder=1)
        ax.scatter([none], [place], color="#c04a00", s=22, label=None if place else "as deleted")
        ax.scatter([mapped], [place], color="#0072b2", s=22, label=None if place else "linear repair")
    ax.set_yticks(range(len(pairs)), [name for *_, name in pairs])
    ax.set(xscale="log", xlabel="perplexity of SmolLM2 without 30 % of its layers (dense 42.5)")
    ax.legend(frameon=False)


def worth(ax: plt.Axes) -> None:
    """Rank correlation of looking spare with costing little."""
    ((*numbers,),) = table("2026-11-25-results.md", "| J, last token")
    names = ["topology, last token", "topology, mean token", "angle, last token", "angle, mean token"]
    colors = ["#a3487f"] * 2 + ["#007a5a"] * 2 + ["#c04a00"]
    ax.bar_label(
        ax.barh([*names, "block influence"], list(map(float, numbers)), color=colors), fmt="%.2f", padding=3
    )
    ax.invert_yaxis()
    ax.set(xlabel="rank correlation with what a layer is worth, SmolLM2", xlim=(0, 1))


def first_numbers(cells: list[str]) -> list[float]:
    """The value in front of each cell's brackets."""
    return [float(cell.split()[0]) for cell in cells]


def named_lines(
    ax: plt.Axes,
    shares: Sequence[int],
    rows: Mapping[str, list[str]],
    colors: Mapping[str, str],
    above: Callable[[float], float],
) -> None:
    """A line for each rule with a color, named at its end; each name is at least `above` the one below."""
    lines, place = {name: first_numbers(rows[name]) for name in colors}, -math.inf
    for name, values in sorted(lines.items(), key=lambda line: line[1][-1]):
        ax.plot(shares, values, ":" if name == "random" else "-", marker="o", ms=4, color=colors[name])
        place = max(values[-1], above(place))
        label = name.split(" k=")[0].removesuffix(", all")
        ax.annotate(label, (shares[-1], place), (8, 0), textcoords="offset points", va="center",
                    color=colors[name])  # fmt: skip


def clouds(ax: plt.Axes) -> None:
    """Perplexity over the dense one's by sparsity, of rules of one pass, on SmolLM2."""
    rows = {row[0]: row[2:7] for row in table("2026-11-29-confirmation-2.md", "| rule | seeds | 10 %")}
    colors = {
        "zigzag_influence": "#0072b2",
        "zigzags": "#856800",
        "block_influence": "#c04a00",
        "zigzag_influence, unprotected": "#a3487f",
        "intersections k=7+10+15, rank": "#007a5a",
        "random": "#868c98",
    }
    shares = (*SHARES, 50)
    named_lines(ax, shares, rows, colors, lambda place: place * 1.6)  # the axis is logarithmic
    ax.axhline(1, color="gray", lw=0.8, ls="--")
    ax.set(xlabel="layers dropped (%)", ylabel="perplexity, dense = 1", xticks=shares, yscale="log")


def trials(ax: plt.Axes) -> None:
    """Percent kept over chance by sparsity, of rules of one pass, greedy and 32 trials."""
    place = table("2026-11-30-confirmation-3.md", "| rule | seeds | 10 %", "## The embedded model")
    rows = {row[0]: row[2:7] for row in place}
    colors = {
        "32 trials, all": "#0072b2",
        "zigzag_influence": "#856800",
        "block_influence": "#c04a00",
        "cosine": "#007a5a",
        "uniform": "#a3487f",
        "random": "#868c98",
    }
    shares = (*SHARES, 50)
    ax.plot(shares, first_numbers(rows["greedy"]), "o", ms=9, mfc="none", color="#22252b", label="greedy")
    named_lines(ax, shares, rows, colors, lambda place: place + 9)
    ax.legend(frameon=False, loc="lower left")
    ax.set(xlabel="layers dropped (%)", ylabel="kept over chance (%)", xticks=shares, ylim=(0, 108))


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(path_type=Path))
def main(folder: Path) -> None:
    plt.rcParams.update({"svg.hashsalt": "topoprune", "font.size": 9})
    for draw, size in (
        (confirmation, (6.4, 3.2)),
        (repair, (6.4, 4.0)),
        (worth, (6.4, 2.0)),
        (clouds, (6.4, 2.8)),
        (trials, (6.4, 2.8)),
    ):
        figure, ax = plt.subplots(figsize=size, layout="constrained")
        ax.spines[["top", "right"]].set_visible(False)
        draw(ax)
        figure.savefig(folder / f"{draw.__name__}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
