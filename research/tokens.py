"""The runs of protocol-tokens.md, with every measurement kept and looked up again.

    python benchmarks/rule/smollm2.py runs/smollm2
    python research/tokens.py runs/smollm2 runs/tokens --texts anarchism,handbook
    python research/tokens.py embedded runs/embedded --half confirmation --seeds 10,11,12 --judged 150

A search costs many passes: give `--groups searches` a run, and fewer seeds, of its own; OUT is shared.

On texts, passages to calibrate on come from the first half of a text's paragraphs, drawn by the seed, and
passages to judge by from the second half, the same for all seeds. Printed is the perplexity over the dense
model's (geometric mean), or what is kept over chance in percent.
"""

from __future__ import annotations

import json
import random
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import click
import numpy as np

from lmms_topoprune._util.disk_cache import Cache
from lmms_topoprune.calibration import loss
from lmms_topoprune.calibration.loss import LossOracle, Text
from lmms_topoprune.calibration.samples import Sample
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.pipeline import Planner, proposals, trials
from lmms_topoprune.plan import format_layers, parse_layers
from lmms_topoprune.surgery import fingerprint

Floats = np.ndarray
LENGTH, JUDGED, DRAWS = 64, 256, 2000
RULES: dict[str, Mapping[str, Any]] = {
    "zigzag_influence": {"criterion": "zigzag_influence"},
    "zigzag_influence, k=10": {"criterion": "zigzag_influence", "k": "10"},
    "zigzag_influence, unprotected": {"criterion": "zigzag_influence", "protect_massive": False},
    "zigzags": {"criterion": "zigzags"},
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
FLOORS: dict[str, Mapping[str, Any]] = {
    "uniform": {"criterion": "uniform"},
    "last_n": {"criterion": "last_n"},
    "random": {"criterion": "random"},
}
SEARCHES: dict[str, Mapping[str, Any]] = {
    "greedy": {"criterion": "greedy"},
    "greedy, protected": {"criterion": "greedy", "protect_massive": True},
    "output_change": {"criterion": "output_change"},
}
"""Those that run the model again."""
SHARES: dict[str, Mapping[str, Any]] = {
    f"{criterion}, image_share={share:g}": {"criterion": criterion, "image_share": share}
    for criterion in ("zigzag_influence", "zigzags")
    for share in (0.0, 0.25, 0.5, 0.75, 1.0)
}
"""Which tokens the cloud is drawn from, on models with images."""
GROUPS = {
    "rules": RULES,
    "floors": FLOORS,
    "searches": SEARCHES,
    "greedy": {"greedy": SEARCHES["greedy"]},
    "scores": {name: RULES[name] for name in ("zigzag_influence", "block_influence")},
    "shares": SHARES,
}
TOPOLOGY = ("zigzag_influence", "zigzags", "intersections", "unions", "topology_angle_influence")


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


class Bench(ABC):
    """One model and what it is judged by; keeps whatever was measured.

    Args:
        model, processor: the dense model.
        out: where measurements are kept.
        facts: what decides how a set of layers is judged.
        tried: how many calibration samples a trial reads.
    """

    samples: int

    def __init__(self, model: Any, processor: Any, out: Path, facts: Sequence[Any], tried: int) -> None:
        self.model, self.processor = model, processor
        self.cache, self.facts = Cache(out / "cache"), [fingerprint(model), *facts]
        loss.MAX_TEXTS = trials.MAX_TEXTS = tried

    @abstractmethod
    def calibration(self, seed: int) -> list[Sample]:
        """The calibration samples of a seed."""

    @abstractmethod
    def measured(self, layers: tuple[int, ...]) -> list[float]:
        """A number for each passage or document, without these layers."""

    @abstractmethod
    def measure(self, found: Floats, dense: Floats) -> float:
        """From means over seeds (units,) to the number that is printed."""

    def planner(self, seed: int) -> Planner:
        return Planner("bench", self.model, self.processor, samples=self.calibration(seed), cache=self.cache)

    def judged(self, layers: str) -> list[float]:
        """The same as `measured`, looked up first."""
        key = [*self.facts, layers]
        found = self.cache.get(key, lambda kept: [float(each) for each in kept])
        if found is None:
            found = self.measured(parse_layers(layers) if layers != "none" else ())
            self.cache.put(key, found)
        return found


class Texts(Bench):
    """A decoder on texts: perplexity over the dense model's; each passage's mean loss."""

    def __init__(
        self, folder: Path, out: Path, texts: Sequence[str], judged: int, samples: int, tried: int, dtype: str
    ) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder / "model")
        model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=dtype).eval()
        super().__init__(model, tokenizer, out, [list(texts), judged, JUDGED], tried)
        self.paragraphs = {t: json.loads((folder / "texts" / f"{t}.json").read_text()) for t in texts}
        self.samples, self.oracle = samples, LossOracle(model, tuple(self._texts(judged)))

    def _texts(self, judged: int) -> Iterable[Text]:
        """One passage each, from the second half of the paragraphs."""
        for paragraphs in self.paragraphs.values():
            second = joined(paragraphs[len(paragraphs) // 2 :])
            for passage in passages(self.processor, second, JUDGED, judged):
                inputs = self.processor(passage, return_tensors="pt")
                yield Text(inputs, inputs["input_ids"].clone())

    def calibration(self, seed: int) -> list[Sample]:
        """From the first half, of all texts in turn."""
        found = []
        for text, paragraphs in self.paragraphs.items():
            first = paragraphs[: len(paragraphs) // 2]
            order = random.Random(f"{text}-{seed}").sample(first, len(first))
            found.append(passages(self.processor, order, LENGTH, self.samples // len(self.paragraphs)))
        return [Sample(piece) for pieces in zip(*found, strict=True) for piece in pieces]

    def measured(self, layers: tuple[int, ...]) -> list[float]:
        if not layers:
            return [part.mean for part in self.oracle.predictions()]
        return [part.mean for part in self.oracle.predictions_without([layers])[0]]

    def measure(self, found: Floats, dense: Floats) -> float:
        return float(np.exp(np.mean(found - dense)))


class Documents(Bench):
    """A vision-language model on one half of the embedded tasks: percent kept over chance."""

    def __init__(
        self, path: str, half: str, each: int, out: Path, samples: int, tried: int, dtype: str
    ) -> None:
        sys.path.append(str(Path(__file__).parents[1] / "benchmarks" / "rule"))
        from targets import Vision  # type: ignore[import-not-found]

        self.target = Vision.load("bench", path, half, each, dtype)
        super().__init__(self.target.model, self.target.processor, out, [half, each], tried)
        self.samples = samples

    def calibration(self, seed: int) -> list[Sample]:
        found: list[Sample] = self.target.samples(seed, self.samples)
        return found

    def measured(self, layers: tuple[int, ...]) -> list[float]:
        right: list[float] = self.target.evaluate(layers)["right"].tolist()
        return right

    def measure(self, found: Floats, dense: Floats) -> float:
        chance = float(self.target.chance.mean())
        return 100 * (float(found.mean()) - chance) / (float(dense.mean()) - chance)


def plans(
    bench: Bench, seed: int, sparsities: Sequence[float], count: int, rules: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """What each rule drops, and what each number of trials settles on, at one seed."""
    planner, rows = bench.planner(seed), []
    asked = [(rule, sparsity) for rule in rules for sparsity in sparsities]
    shared = {"samples": bench.samples, "seed": seed, "point_count": 1024}
    wanted = [PruningOptions(**{**shared, **rules[rule], "sparsity": share}) for rule, share in asked]
    for (rule, share), plan in zip(asked, planner.plans(wanted), strict=True):
        seconds = sum(stage["seconds"] for stage in plan.stages.values())
        rows.append(row(rule, share, seed, plan.dropped, 0, seconds, plan.parameters.get("massive", "")))
    if not count:
        return rows
    for share in sparsities:
        for name, among in (("all", proposals.PROPOSERS), ("without topology", _without_topology())):
            start, own = time.perf_counter(), "zigzag_influence" if name == "all" else "block_influence"
            plan = _settled(
                planner, PruningOptions(criterion=own, sparsity=share, trials=count, **shared), among
            )
            seconds = time.perf_counter() - start
            for spent in sorted({n for n in (8, 16, 32, 64, 128, count) if n <= count}):
                best = min(plan.trials[:spent], key=lambda trial: trial["loss"])
                told = (tuple(best["dropped"]), spent, seconds, best["by"])
                rows.append(row(f"{spent} trials, {name}", share, seed, *told))
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


def table(
    bench: Bench, rows: Sequence[Mapping[str, Any]], found: Mapping[str, Sequence[float]], reference: str
) -> str:
    """Markdown: a rule a line; in brackets how far it is from the reference over the seeds that both have."""
    shares = sorted({r["sparsity"] for r in rows})
    lines = ["| rule | seeds | " + " | ".join(f"{100 * s:g} %" for s in shares) + " | layers, first seed |"]
    lines.append("|---|---:|" + "---|" * (len(shares) + 1))
    dense = np.array(found["none"])
    chosen: dict[tuple[str, float], dict[int, str]] = {}
    for r in sorted(rows, key=itemgetter("seed")):
        chosen.setdefault((r["rule"], r["sparsity"]), {})[r["seed"]] = r["dropped"]
    for rule in dict.fromkeys(r["rule"] for r in rows):
        cells, first, seeds = [], [], set()
        for share in shares:
            mine, other = chosen.get((rule, share), {}), chosen.get((reference, share), {})
            both = sorted(mine.keys() & other.keys())
            seeds |= set(both)
            first.append(next(iter(mine.values()), "-"))
            pair = [np.array([found[sets[seed]] for seed in both]) for sets in (mine, other)]
            cells.append(cell(bench, pair[0], pair[1], dense) if both else "-")
        lines.append(f"| {rule} | {len(seeds)} | " + " | ".join(cells) + " | " + "; ".join(first) + " |")
    return "\n".join(lines)


def cell(bench: Bench, mine: Floats, other: Floats, dense: Floats) -> str:
    """Both (seeds, units); resampled over seeds and units at once."""
    rng, gaps = np.random.default_rng(0), []
    for _ in range(DRAWS):
        seeds = rng.integers(len(mine), size=len(mine))
        drawn = rng.integers(len(dense), size=len(dense))
        means = [each[seeds][:, drawn].mean(0) for each in (mine, other)]
        gaps.append(np.subtract(*(bench.measure(each, dense[drawn]) for each in means)))
    low, high = np.percentile(gaps, [2.5, 97.5])
    value, gap = bench.measure(mine.mean(0), dense), np.mean(gaps)
    return f"{value:.3g} ({gap:+.2g}, {low:+.2g} to {high:+.2g})"


@click.command()
@click.argument("folder", type=str)
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--texts", help="Names of texts, joined by commas; FOLDER holds model/ and texts/.")
@click.option("--half", help="Of the embedded tasks' documents instead; FOLDER is a model, or embedded.")
@click.option("--seeds", default="0", show_default=True)
@click.option("--sparsities", default="0.1,0.2,0.3", show_default=True)
@click.option("--trials", "count", default=32, show_default=True)
@click.option(
    "--judged", default=4, show_default=True, help="Passages a text, or documents a task, is judged by."
)
@click.option("--samples", default=96, show_default=True, help="To calibrate on.")
@click.option("--groups", default="rules", show_default=True, help=f"Joined by commas: {', '.join(GROUPS)}.")
@click.option("--reference", default="block_influence", show_default=True, help="Rules are compared with it.")
@click.option("--tried", default=32, show_default=True, help="Of these, how many a trial reads.")
@click.option("--dtype", default="float32", show_default=True, help="Of the weights: bfloat16 is faster.")
def main(
    folder: str, out: Path, texts: str | None, half: str | None, seeds: str, sparsities: str, count: int,
    judged: int, samples: int, tried: int, groups: str,
    reference: str, dtype: str,
) -> None:  # fmt: skip
    """Run, or go on with, one part of the protocol; OUT keeps all that was measured."""
    out.mkdir(parents=True, exist_ok=True)
    if unknown := set(groups.split(",")) - GROUPS.keys():
        raise click.BadParameter(f"{unknown}; allowed: {', '.join(GROUPS)}", param_hint="--groups")
    rules = {name: rule for group in groups.split(",") for name, rule in GROUPS[group].items()}
    shares, rows = [float(s) for s in sparsities.split(",")], []
    bench: Bench
    if half:
        bench = Documents(folder, half, judged, out, samples, tried, dtype)
    else:
        bench = Texts(Path(folder), out, (texts or "").split(","), judged, samples, tried, dtype)
    for seed in map(int, seeds.split(",")):
        rows += plans(bench, seed, shares, count, rules)
        click.echo(f"{time.strftime('%X')} seed {seed}: {len({r['dropped'] for r in rows})} sets of layers")
    found = {
        layers: bench.judged(layers) for layers in dict.fromkeys(["none", *(r["dropped"] for r in rows)])
    }
    kept = out / "rows.json"
    if kept.exists():  # of other seeds, sparsities and groups; a table is made of all
        known = json.loads(kept.read_text())
        if known["facts"] != bench.facts:
            raise click.UsageError(f"{kept} was judged otherwise ({known['facts']}); pass another folder")
        key = itemgetter("rule", "sparsity", "seed")
        mine = {key(row) for row in rows}
        rows = [row for row in known["rows"] if key(row) not in mine] + rows
        found = {**known["found"], **found}
    kept.write_text(json.dumps({"facts": bench.facts, "rows": rows, "found": found}, indent=1))
    click.echo(table(bench, rows, found, reference))


if __name__ == "__main__":
    main()
