"""The comparison in research/2026-11-25-results.md: every criterion, 10 to 60 %, three calibration seeds.

    python benchmarks/rule/results.py runs/results --pictures docs/images
    python benchmarks/rule/smollm2.py runs/smollm2
    python benchmarks/rule/results.py runs/results --pictures docs/images --smollm2 runs/smollm2

On the embedded model: `topoprune sweep`, `compare` and `report`, all tasks. On SmolLM2-135M: perplexity on
two texts. Whatever is in the folder already is not done again. Prints tables and draws pictures; an hour each
on two cores, --questions 20 to try it out.
"""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import matplotlib
import numpy as np
from candidates import BASELINES
from table import DECIDING, Outcome
from targets import name_of

from lmms_topoprune.comparison.side_by_side import align, compare
from lmms_topoprune.comparison.statistics import ROUNDS, bootstrap_scores
from lmms_topoprune.results.reading import Run, variant
from lmms_topoprune.sweep.run_folders import read_runs

matplotlib.use("svg")
import matplotlib.pyplot as plt

CRITERIA = (
    "topology",
    "topology:selection=rank",
    "topology:selection=block",
    "multiscale",
    "topology_angle",
    "topology_angle_influence",
    "gardinazzi",
    "gardinazzi:selection=threshold",
    "topovlm",
    "cosine",
    "angular",
    "block_influence",
    "relative_magnitude",
    "taylor",
    "greedy",
    "uniform",
    "last_n",
    "random",
    "reverse",
    "static",
    "shuffled",
)
RULES = {
    "k5": "topology",
    "rank": "topology selection=rank",
    "block": "topology selection=block",
    "multiscale": "multiscale",
    "mean-topology~mean-angle": "topology_angle",
    "rank-mean-topology~mean-angle~influence": "topology_angle_influence",
    **{name: name for name in (*BASELINES, "topovlm", "greedy")},
}
"""What run.py calls them -> their names elsewhere."""
SPARSITIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
SEEDS = (0, 1, 2)
Cells = dict[tuple[str, float], np.ndarray]


@dataclass(frozen=True)
class Kept:
    """What criteria keep of the dense score over chance.

    Attributes:
        points: (criterion, sparsity) -> the mean over seeds; 1 is the dense model, 0 is guessing.
        draws: the same with seeds and questions drawn anew, all cells alike (rounds,).
    """

    points: dict[tuple[str, float], float]
    draws: Cells

    @classmethod
    def of(cls, runs: Sequence[Run], layers: int) -> Kept:
        tables = align([run.tasks for run in runs])
        dense = next(i for i, run in enumerate(runs) if run.is_dense)
        score = np.mean([[row.score for row in table] for table in tables.values()], axis=0)
        chance = float(np.mean([table[0].chance for table in tables.values()]))
        drawn = np.mean(
            [
                bootstrap_scores(
                    np.stack([row.scores for row in table]), table[0].weights, ROUNDS, i, table[0].strata
                )
                for i, table in enumerate(tables.values())
            ],
            axis=0,
        )
        kept = (score - chance) / (score[dense] - chance)
        kept_drawn = (drawn - chance) / (drawn[dense] - chance)
        cells = defaultdict(list)
        for i, run in enumerate(runs):
            if run.plan is not None and run.plan.dropped:
                cells[variant(run.plan), _asked(len(run.plan.dropped), layers)].append(i)
        # The same seeds for every cell, so that differences are paired.
        drawn_seeds = np.random.default_rng(0).integers(0, len(SEEDS), (ROUNDS, len(SEEDS)))
        draws = {key: _over_seeds(kept_drawn[numbers], drawn_seeds) for key, numbers in cells.items()}
        return cls({key: float(kept[numbers].mean()) for key, numbers in cells.items()}, draws)

    def interval(self, name: str, sparsity: float, other: str | None = None) -> tuple[float, float, float]:
        """A cell, or its difference from another criterion's, with a 95 % interval."""
        draws, point = self.draws[name, sparsity], self.points[name, sparsity]
        if other is not None:
            draws, point = draws - self.draws[other, sparsity], point - self.points[other, sparsity]
        low, high = np.quantile(draws, [0.025, 0.975])
        return point, float(low), float(high)

    @property
    def names(self) -> list[str]:
        """Criteria that take a sparsity, the best mean over the sparsities first."""
        names = dict.fromkeys(name for name, s in self.points if s in SPARSITIES)
        return sorted(names, key=lambda name: -self._mean(name))

    def _mean(self, name: str) -> float:
        return float(np.mean([self.points[name, s] for s in SPARSITIES]))


def _asked(dropped: int, layers: int) -> float:
    """The sparsity of the sweep that drops so many layers, or the share that a threshold found."""
    return next((s for s in SPARSITIES if round(s * layers) == dropped), dropped / layers)


def _over_seeds(draws: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """(runs, rounds) of a cell's runs -> (rounds,): the mean over as many runs drawn anew."""
    return np.take_along_axis(draws, (seeds % len(draws)).T, axis=0).mean(0)


def table(kept: Kept, reference: str | None = None) -> str:
    """Markdown: what is kept, or `reference` minus every criterion, with half the interval's width."""
    head = ["criterion", *(f"{s:.0%}" for s in SPARSITIES)]
    lines = [head, ["---"] + ["---:"] * len(SPARSITIES)]
    for name in kept.names:
        cells = []
        for s in SPARSITIES:
            if name == reference:
                cells.append("-")
                continue
            pair = (reference, name) if reference else (name, None)
            point, low, high = kept.interval(pair[0], s, pair[1])
            text = f"{100 * point:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]" if reference else ""
            if reference and (low > 0 or high < 0):
                text = f"**{text}**"
            cells.append(text or f"{100 * point:.0f} ± {50 * (high - low):.0f}")
        lines.append([f"`{name}`", *cells])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def own_counts(kept: Kept) -> str:
    """Markdown list: criteria that find the number of layers by themselves."""
    cells = [(name, s) for name, s in kept.points if s not in SPARSITIES]
    lines = []
    for name, s in sorted(cells):
        point, low, high = kept.interval(name, s)
        lines.append(f"- `{name}` drops {s:.0%}: {100 * point:.0f} [{100 * low:.0f}, {100 * high:.0f}]")
    return "\n".join(lines)


Curve = list[tuple[float, float, float]]


def draw(curves: Mapping[str, Curve], target: Path, label: str, bottom: float) -> None:
    """One small picture a criterion, the others in gray behind it.

    Args:
        curves: criterion -> (value, its interval's ends) at each of SPARSITIES; 1 is dense.
    """
    columns = 4
    rows = -(-len(curves) // columns)
    plt.rcParams.update({"svg.hashsalt": "topoprune", "svg.fonttype": "none", "font.size": 8})
    figure, axes = plt.subplots(
        rows, columns, figsize=(8.5, 1.7 * rows), sharex=True, sharey=True, layout="constrained"
    )
    for ax in axes.flat[len(curves) :]:
        ax.set_visible(False)
    x = 100 * np.array(SPARSITIES)
    for ax, (name, curve) in zip(axes.flat, curves.items(), strict=False):
        for other in curves.values():
            ax.plot(x, [100 * cell[0] for cell in other], color="0.85", linewidth=0.6)
        point, low, high = (100 * np.array(curve)).T
        ax.plot(x, point, marker="o", markersize=3, color="C0")
        ax.fill_between(x, low, high, alpha=0.2, linewidth=0, color="C0")
        ax.axhline(0, color="gray", linewidth=0.6, linestyle=":")
        ax.set_title(name, fontsize=8)
        ax.set_ylim(100 * bottom, 110)
    figure.supxlabel("decoder layers dropped (%)")
    figure.supylabel(label)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, metadata={"Date": None})
    plt.close(figure)


def topoprune(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "lmms_topoprune.cli.main", *arguments], check=True)


def embedded(folder: Path, pictures: Path, questions: int, workers: int, reference: str) -> None:
    """Sweep, print, draw."""
    settings = ("--limit", str(questions), "--dtype", "bfloat16", "--workers", str(workers))
    grid = ("--criteria", ",".join(CRITERIA), "--sparsities", ",".join(map(str, SPARSITIES)))
    topoprune("sweep", *grid, "--seeds", ",".join(map(str, SEEDS)), *settings, "-o", str(folder))
    topoprune("report", str(folder), "-o", str(folder / "report.html"), "--title", "Every criterion")
    runs = read_runs([folder])
    comparison = compare(runs, rounds=ROUNDS)  # refuses runs that are not comparable
    layers = next(run.plan.layers for run in runs if run.plan is not None)
    kept = Kept.of(runs, layers)
    dense = comparison.rows[0].cells
    scores = ", ".join(f"{task} {100 * cell.score:.1f} %" for task, cell in dense.items())
    click.echo(f"dense: {scores}; {questions} questions a task\n\n{table(kept)}\n")
    click.echo(f"{own_counts(kept)}\n")
    click.echo(f"{reference} minus the criterion, in points\n\n{table(kept, reference)}")
    curves = {name: [kept.interval(name, s) for s in SPARSITIES] for name in kept.names}
    draw(curves, pictures / "criteria.svg", "kept over chance (%)", -0.15)


def language(folder: Path, smollm2: Path, pictures: Path, reference: str) -> None:
    """Evaluate, print perplexities, draw dense / pruned perplexity."""
    script = [sys.executable, str(Path(__file__).with_name("run.py")), str(folder), "--phase", "development"]
    rules = ("--rules", ",".join(RULES), "--seeds", str(len(SEEDS)), "--only", "smollm2")
    greedy = ("--greedy-upto", str(SPARSITIES[-1]))
    subprocess.run([*script, "--smollm2", str(smollm2), *rules, *greedy], check=True)
    outcome = Outcome(folder / "development" / "smollm2")
    once = np.ones((1, outcome.documents))
    dense = perplexity(outcome, (), once)[0]
    lines = [["criterion", *(f"{s:.0%}" for s in SPARSITIES)], ["---"] + ["---:"] * len(SPARSITIES)]
    order = sorted(RULES, key=lambda rule: _mean_log(outcome, rule))
    for rule in order:
        cells = [_shown(_mean(outcome, rule, s, once)[0]) for s in SPARSITIES]
        lines.append([f"`{RULES[rule]}`", *cells])
    head = f"perplexity, geometric mean over texts and seeds; dense {dense:.1f}\n\n"
    click.echo(head + "\n".join("| " + " | ".join(line) + " |" for line in lines))
    rng = np.random.default_rng(0)
    weights = rng.multinomial(outcome.documents, np.full(outcome.documents, 1 / outcome.documents), 2000)
    click.echo(f"\nperplexity over that of {reference}\n\n{_ratios(outcome, order, reference, weights)}")
    curves = {RULES[rule]: _curve(outcome, rule, weights) for rule in order}
    draw(curves, pictures / "perplexity.svg", "dense / pruned perplexity (%)", -0.05)


def perplexity(outcome: Outcome, layers: tuple[int, ...], weights: np.ndarray) -> np.ndarray:
    """(draws,): geometric mean over the texts, every passage counted `weights` (draws, passages) times."""
    units = outcome.units[name_of(layers)]
    loss = np.mean([weights @ units[f"nll {text}"] for text in outcome.about["texts"]], axis=0)
    return np.asarray(np.exp(loss / weights.sum(1)))


def _losses(outcome: Outcome, rule: str, sparsity: float, weights: np.ndarray) -> np.ndarray:
    """(seeds, draws): log perplexity for each calibration seed."""
    chosen = outcome.choices[rule, sparsity]
    return np.log([perplexity(outcome, chosen[seed], weights) for seed in SEEDS])


def _mean(outcome: Outcome, rule: str, sparsity: float, weights: np.ndarray) -> np.ndarray:
    """(draws,): the geometric mean over the seeds."""
    return np.asarray(np.exp(_losses(outcome, rule, sparsity, weights).mean(0)))


def _mean_log(outcome: Outcome, rule: str) -> float:
    """Over the sparsities that decide."""
    once = np.ones((1, outcome.documents))
    return float(np.mean([np.log(_mean(outcome, rule, s, once)[0]) for s in DECIDING]))


def _interval(differences: np.ndarray) -> tuple[float, float]:
    """95 % interval of exp(differences (seeds, draws)): seeds are drawn anew like passages."""
    drawn = np.random.default_rng(1).integers(0, len(SEEDS), (differences.shape[1], len(SEEDS)))
    found = np.exp(np.take_along_axis(differences, drawn.T, axis=0).mean(0))
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def _ratios(outcome: Outcome, rules: Sequence[str], reference: str, weights: np.ndarray) -> str:
    """Markdown: perplexity of every rule over the reference's, paired by seed and passage."""
    once = np.ones((1, outcome.documents))
    lines = [["criterion", *(f"{s:.0%}" for s in SPARSITIES)], ["---"] + ["---:"] * len(SPARSITIES)]
    base = next(rule for rule in rules if RULES[rule] == reference)
    for rule in rules:
        cells = []
        for s in SPARSITIES:
            low, high = _interval(_losses(outcome, rule, s, weights) - _losses(outcome, base, s, weights))
            point = _mean(outcome, rule, s, once)[0] / _mean(outcome, base, s, once)[0]
            text = f"{_ratio(point)} [{_ratio(low)}, {_ratio(high)}]"
            cells.append("-" if rule == base else f"**{text}**" if low > 1 or high < 1 else text)
        lines.append([f"`{RULES[rule]}`", *cells])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value < 100 else _shown(value)


def _curve(outcome: Outcome, rule: str, weights: np.ndarray) -> Curve:
    """dense / pruned, with 95 % intervals over seeds and passages drawn anew."""
    once, found = np.ones((1, outcome.documents)), []
    for sparsity in SPARSITIES:
        dense = np.log(perplexity(outcome, (), weights))
        low, high = _interval(dense - _losses(outcome, rule, sparsity, weights))
        found.append((perplexity(outcome, (), once)[0] / _mean(outcome, rule, sparsity, once)[0], low, high))
    return found


def _shown(value: float) -> str:
    return f"{value:.1f}" if value < 1000 else f"{value:.0e}".replace("e+0", "e").replace("e+", "e")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--pictures", type=click.Path(path_type=Path), required=True, help="Folder for SVG files.")
@click.option("--smollm2", type=click.Path(path_type=Path, exists=True), help="What smollm2.py made.")
@click.option("--questions", default=100, show_default=True, help="Questions a task.")
@click.option("--workers", default=2, show_default=True, help="Models evaluated at once.")
@click.option(
    "--reference", default="topology_angle_influence", show_default=True, help="Criterion that is compared."
)
def main(
    folder: Path, pictures: Path, smollm2: Path | None, questions: int, workers: int, reference: str
) -> None:
    """Measure into FOLDER, print tables, draw pictures: the embedded model, or SmolLM2 with --smollm2."""
    if smollm2 is None:
        embedded(folder / "embedded", pictures, questions, workers, reference)
    else:
        language(folder, smollm2, pictures, reference)


if __name__ == "__main__":
    main()
