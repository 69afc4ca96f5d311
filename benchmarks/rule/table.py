"""Tables of a phase: every rule at every sparsity, with paired intervals.

python benchmarks/rule/table.py runs/rule/development
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import click
import numpy as np
from targets import TASK_NAMES, name_of

DECIDING = (0.1, 0.2, 0.3, 0.4)
DRAWS = 10_000
MEASURES = ("perplexity", "cloze")


@dataclass(frozen=True)
class Outcome:
    """What was measured on one target.

    Attributes:
        folder: holds choices.json, about.json and units/.
        measures: which of a language model's measures count.
        known: what `resampled` has computed.
    """

    folder: Path
    measures: tuple[str, ...] = MEASURES
    known: dict[tuple[int, ...], np.ndarray] = field(default_factory=dict)

    @cached_property
    def choices(self) -> dict[tuple[str, float], dict[int, tuple[int, ...]]]:
        """(rule, sparsity) -> seed -> layers, as far as they are evaluated."""
        found: dict[tuple[str, float], dict[int, tuple[int, ...]]] = defaultdict(dict)
        for key, layers in json.loads((self.folder / "choices.json").read_text()).items():
            rule, sparsity, seed = key.rsplit(" ", 2)
            if name_of(layers) in self.units:
                found[rule, float(sparsity)][int(seed)] = tuple(layers)
        return dict(found)

    @cached_property
    def about(self) -> dict[str, list[float] | list[str]]:
        return json.loads((self.folder / "about.json").read_text())

    @cached_property
    def units(self) -> dict[str, dict[str, np.ndarray]]:
        """Set of layers -> figure -> a number a document."""
        return {file.stem: dict(np.load(file)) for file in (self.folder / "units").glob("*.npz")}

    @property
    def is_vision(self) -> bool:
        return "chance" in self.about

    @property
    def documents(self) -> int:
        return len(next(iter(self.units["dense"].values())))

    def measure(self, layers: tuple[int, ...], weights: np.ndarray) -> np.ndarray:
        """(draws,): mean of the measures, every document counted `weights` (draws, documents) times."""
        units, dense = self.units[name_of(layers)], self.units["dense"]
        if self.is_vision:
            chance = np.array(self.about["chance"], float)
            return (weights @ (units["right"] - chance)) / (weights @ (dense["right"] - chance))
        found = []
        count = weights.sum(1)
        for text in self.about["texts"]:
            change = (weights @ (dense[f"nll {text}"] - units[f"nll {text}"]).astype(float)) / count
            cloze = (weights @ units[f"right {text}"]) / (weights @ dense[f"right {text}"])
            both = {"perplexity": np.exp(change), "cloze": cloze}
            found += [both[measure] for measure in self.measures]
        return np.mean(found, axis=0)

    @cached_property
    def _weights(self) -> np.ndarray:
        """(DRAWS, documents): how often each document is drawn; other draws on every target."""
        rng = np.random.default_rng([0, sum(self.folder.name.encode())])
        return rng.multinomial(self.documents, np.full(self.documents, 1 / self.documents), DRAWS)

    def resampled(self, layers: tuple[int, ...]) -> np.ndarray:
        """(DRAWS,): the measure on documents drawn anew, the same ones for every set of layers."""
        if layers not in self.known:
            self.known[layers] = self.measure(layers, self._weights)
        return self.known[layers]

    @staticmethod
    def _by_task(figures: np.ndarray) -> dict[str, np.ndarray]:
        """Task -> mean of figures (..., documents) over its documents, which stand together."""
        parts = np.split(figures, len(TASK_NAMES), axis=-1)
        return {task: part.mean(-1) for task, part in zip(TASK_NAMES, parts, strict=True)}

    @property
    def dense(self) -> str:
        """What the dense model itself reaches."""
        units = self.units["dense"]
        if self.is_vision:
            figures = np.array([units["right"], self.about["chance"]], float)
            means = {"all": figures.mean(1), **self._by_task(figures)}
            return ", ".join(
                f"{task} {right:.1%} (chance {chance:.1%})" for task, (right, chance) in means.items()
            )
        return ", ".join(
            f"{text}: perplexity {np.exp(units[f'nll {text}'].mean()):.1f}, "
            f"cloze {units[f'right {text}'].sum() / units[f'asked {text}'].sum():.1%}"
            for text in self.about["texts"]
        )

    def score(self, rule: str, sparsity: float) -> float:
        """Mean of the measures over the seeds; 1 is the dense model."""
        once = np.ones((1, self.documents))
        return float(np.mean([self.measure(v, once) for v in self.choices[rule, sparsity].values()]))

    def has(self, rule: str, sparsity: float) -> bool:
        return (rule, sparsity) in self.choices

    @property
    def rules(self) -> list[str]:
        return list(dict.fromkeys(rule for rule, _ in self.choices))


def overall(outcomes: Sequence[Outcome], rule: str, sparsity: float) -> float:
    """The mean over kinds of targets: several vision models count as one."""
    kinds = defaultdict(list)
    for outcome in outcomes:
        kinds[outcome.is_vision].append(outcome.score(rule, sparsity))
    return float(np.mean([np.mean(values) for values in kinds.values()]))


def interval(
    outcomes: Sequence[Outcome], one: str, other: str, sparsities: Sequence[float]
) -> tuple[float, float, float]:
    """one - other, the mean over the sparsities, with a 95 % interval.

    Seeds and documents are drawn anew at once, the same for all rules and sparsities.
    """
    totals = np.zeros(DRAWS)
    kinds = sum(o.is_vision for o in outcomes), sum(not o.is_vision for o in outcomes)
    groups = sum(count > 0 for count in kinds)
    for outcome in outcomes:
        weight = 1 / (kinds[0] if outcome.is_vision else kinds[1]) / groups
        totals += weight * _differences(outcome, one, other, sparsities)
    point = np.mean([overall(outcomes, one, s) - overall(outcomes, other, s) for s in sparsities])
    low, high = np.quantile(totals, [0.025, 0.975])
    return float(point), float(low), float(high)


def _differences(outcome: Outcome, one: str, other: str, sparsities: Sequence[float]) -> np.ndarray:
    """(draws,): resampled differences on one target."""
    choices, rules = outcome.choices, (one, other)
    seeds = sorted(set.intersection(*(set(choices[rule, s]) for rule in rules for s in sparsities)))
    rng = np.random.default_rng([1, sum(outcome.folder.name.encode())])
    drawn = rng.multinomial(len(seeds), np.full(len(seeds), 1 / len(seeds)), DRAWS) / len(seeds)
    values = np.mean(
        [
            [outcome.resampled(choices[one, s][x]) - outcome.resampled(choices[other, s][x]) for x in seeds]
            for s in sparsities
        ],
        axis=0,
    )
    return (drawn * values.T).sum(1)


def ranking(
    outcomes: Sequence[Outcome], rules: Sequence[str], sparsities: Sequence[float]
) -> list[tuple[str, float]]:
    scores = [(rule, float(np.mean([overall(outcomes, rule, s) for s in sparsities]))) for rule in rules]
    return sorted(scores, key=lambda pair: -pair[1])


def markdown(outcomes: Sequence[Outcome], sparsities: Sequence[float]) -> str:
    """Rules by their score; the overall figure at every sparsity, then each target's mean."""
    rules = [r for r in outcomes[0].rules if all(o.has(r, s) for o in outcomes for s in sparsities)]
    deciding = [s for s in sparsities if s in DECIDING]
    head = ["rule", "seeds", "score", *(f"{s:.0%}" for s in sparsities), *(o.folder.name for o in outcomes)]
    lines = [" | ".join(head), " | ".join(["---"] + ["---:"] * (len(head) - 1))]
    for rule, score in ranking(outcomes, rules, deciding):
        cells = [f"{overall(outcomes, rule, s):.3f}" for s in sparsities]
        own = [f"{np.mean([o.score(rule, s) for s in deciding]):.3f}" for o in outcomes]
        seeds = min(len(o.choices[rule, s]) for o in outcomes for s in sparsities)
        lines.append(" | ".join([rule, str(seeds), f"{score:.3f}", *cells, *own]))
    return "\n".join(f"| {line} |" for line in lines)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
@click.option("--reference", help="Rule whose differences from all others are shown with intervals.")
@click.option("--each", is_flag=True, help="Differences on every target, too.")
@click.option("--sparsities", default="0.1,0.2,0.3,0.4,0.5,0.6", show_default=True)
@click.option("--measures", default=",".join(MEASURES), show_default=True, help="Of language models.")
@click.option("--against", help="Only the differences from these rules, joined by commas.")
def main(
    folder: Path, reference: str | None, each: bool, sparsities: str, measures: str, against: str | None
) -> None:
    """Print the tables of a phase."""
    counted = tuple(measures.split(","))
    outcomes = [Outcome(place.parent, counted) for place in sorted(folder.glob("*/choices.json"))]
    wanted = [float(s) for s in sparsities.split(",")]
    for outcome in outcomes:
        click.echo(f"{outcome.folder.name}, dense: {outcome.dense}")
    click.echo("\n" + markdown(outcomes, wanted))
    if reference is None:
        return
    others = [rule for rule in (against.split(",") if against else outcomes[0].rules) if rule != reference]
    for part in [outcomes, *([o] for o in outcomes if each)]:
        names = ", ".join(outcome.folder.name for outcome in part)
        click.echo(f"\n{reference} minus others on {names}; 95 % intervals, bold where it is behind\n")
        click.echo(differences(part, reference, others, wanted))


def differences(
    outcomes: Sequence[Outcome], reference: str, others: Sequence[str], sparsities: Sequence[float]
) -> str:
    """A row a rule, a column a sparsity, and the mean of those that decide."""
    columns: dict[str, Sequence[float]] = {f"{s:.0%}": [s] for s in sparsities}
    columns["10 to 40%"] = DECIDING
    lines = [["against", *columns], ["---"] + ["---:"] * len(columns)]
    for rule in others:
        cells = []
        for wanted in columns.values():
            if all(o.has(rule, s) for o in outcomes for s in wanted):
                point, low, high = interval(outcomes, reference, rule, wanted)
                text = f"{point:+.3f} [{low:+.3f}, {high:+.3f}]"
                cells.append(f"**{text}**" if high < 0 else text)
            else:
                cells.append("-")
        lines.append([rule, *cells])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    main()
