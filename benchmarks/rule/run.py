"""Choose layers by every rule, evaluate every set of layers once; whatever is on disk is not done again.

    python benchmarks/rule/run.py runs/rule --smollm2 runs/smollm2 --phase development

For each target a folder: choices.json (rule, sparsity, seed -> layers) and units/LAYERS.npz.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from candidates import BASELINES, CANDIDATES, Clouds, baseline_layers, options_of
from targets import Language, Target, Vision, name_of

from lmms_topoprune._util import files
from lmms_topoprune.calibration.calibration_set import CalibrationSet
from lmms_topoprune.calibration.loss import LossOracle
from lmms_topoprune.calibration.prompts import Prompter
from lmms_topoprune.calibration.states import DecoderLayers
from lmms_topoprune.criteria import greedy as greedy_perplexity
from lmms_topoprune.criteria.scoring import Measurements
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.pipeline.calibrate import Reading, calibrate
from lmms_topoprune.surgery import undeletable

SPARSITIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
SEEDS = {"development": range(5), "confirmation": range(5, 10)}
Choices = dict[str, list[int]]


def targets(phase: str, smollm2: Path | None, runs: dict[str, Path], only: str | None) -> Iterator[Target]:
    """The targets of a phase, one at a time: each holds its dense states in memory."""
    for name, folder in {"embedded": "embedded", **runs}.items():
        if only in (None, name):
            yield Vision.load(name, str(folder), phase)
    if smollm2 is not None and only in (None, "smollm2"):
        texts = ("anarchism", "handbook") if phase == "development" else ("jargon", "reference")
        yield Language.load("smollm2", smollm2, texts)


def choose_all(target: Target, seed: int, rules: list[str], clouds: Clouds) -> Choices:
    """What the candidates drop at every sparsity."""
    return {
        f"{name} {sparsity} {seed}": list(CANDIDATES[name].layers(clouds, round(sparsity * target.layers)))
        for sparsity in SPARSITIES
        for name in rules
    }


def choose_baselines(target: Target, seed: int, evidence: Measurements) -> Choices:
    """What the registered criteria drop at every sparsity."""
    scores: dict[Any, Any] = {}
    marked_scores: dict[Any, Any] = {}
    (marked,) = _calibrate(target, seed, {"ret": ("topovlm",)})
    found: Choices = {}
    for sparsity in SPARSITIES:
        for name in BASELINES:
            layers = baseline_layers(name, evidence, sparsity, seed, scores)
            found[f"{name} {sparsity} {seed}"] = list(layers)
        layers = baseline_layers("topovlm", marked, sparsity, seed, marked_scores)
        found[f"topovlm {sparsity} {seed}"] = list(layers)
    return found


def choose_greedy(target: Target, seed: int, sparsities: Sequence[float]) -> Choices:
    """The nested order of greedy perplexity, cut at each of these sparsities."""
    samples = target.samples(seed, 64)
    loss = LossOracle.of(target.model, Prompter(target.processor), samples, batch_size=16)
    layers = _layers(target)
    scores = greedy_perplexity.score(loss, layers, options_of("greedy", sparsities[-1], seed))
    order = np.argsort(-scores.values, kind="stable")
    return {
        f"greedy {sparsity} {seed}": sorted(int(x) for x in order[: round(sparsity * target.layers)])
        for sparsity in sparsities
    }


def kept_clouds(target: Target, seed: int, folder: Path) -> Clouds | None:
    """The states of an earlier call, if they are on disk."""
    file = folder / f"states-{seed}.npz"
    if not file.exists():
        return None
    with np.load(file) as stored:
        if "steps" not in stored:  # written before block influence took part
            return None
        tokens = {name: stored[name].astype(np.float32) for name in ("last", "mean")}
        return Clouds(tokens, stored["steps"])


def evidence_and_clouds(target: Target, seed: int, criteria: Sequence[str]) -> tuple[Measurements, Clouds]:
    """One pass: what the criteria read at the last token, and the states of both tokens."""
    last, mean = _calibrate(target, seed, {"last": criteria, "mean": ("topology",)})
    return last, Clouds(
        {"last": last.states["residual"].points, "mean": mean.states["residual"].points},
        last.sums.token_cosine,
    )


def keep_clouds(seed: int, folder: Path, clouds: Clouds) -> None:
    """Write the states and the steps of block influence."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / f"states-{seed}.npz", **clouds.tokens, steps=clouds.steps)


def _calibrate(target: Target, seed: int, by_token: Mapping[str, Sequence[str]]) -> list[Measurements]:
    """One pass for token -> criteria; what it measured for each token."""
    readings = [
        Reading(PruningOptions(token=token, seed=seed, calibration_batch=16), tuple(names))
        for token, names in by_token.items()
    ]
    samples = CalibrationSet(target.samples(seed))
    loss = partial(LossOracle.of, target.model, samples.prompter(target.processor), samples.samples, 16)
    found = calibrate(target.model, target.processor, samples, readings, progress=False)
    return [
        Measurements(_layers(target), found.states(*reading.views), found.sums, loss) for reading in readings
    ]


def _layers(target: Target) -> DecoderLayers:
    return DecoderLayers(target.layers, frozenset(undeletable(target.model)))


def evaluate_all(target: Target, folder: Path, choices: Choices) -> None:
    """One file a set of layers, those of the lower sparsities first."""
    by_sparsity = sorted(choices, key=lambda key: float(key.rsplit(" ", 2)[1]))
    wanted = {(): None, **{tuple(choices[key]): None for key in by_sparsity}}
    for number, layers in enumerate(wanted):
        file = folder / "units" / f"{name_of(layers)}.npz"
        if file.exists():
            continue
        units = target.evaluate(layers)
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_suffix(".tmp.npz")
        np.savez_compressed(draft, **units)
        draft.rename(file)
        if number % 10 == 0:
            click.echo(f"{target.name}: {number} of {len(wanted)} sets of layers")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--phase", type=click.Choice(list(SEEDS)), required=True)
@click.option("--smollm2", type=click.Path(path_type=Path, exists=True), help="What smollm2.py made.")
@click.option(
    "--run", "runs", multiple=True, help="NAME=FOLDER of a further model of the embedded architecture."
)
@click.option("--rules", help="Rules and baselines to evaluate, joined by commas; all without it.")
@click.option(
    "--greedy-upto",
    default=0.2,
    show_default=True,
    help="Highest sparsity of greedy perplexity, which takes most of the time; 0 for none.",
)
@click.option("--seeds", type=int, help="Only so many seeds.")
@click.option("--only", help="Only this target.")
@click.option("--upto", default=0.6, show_default=True, help="Highest sparsity that is evaluated.")
def main(
    folder: Path,
    phase: str,
    smollm2: Path | None,
    runs: tuple[str, ...],
    rules: str | None,
    greedy_upto: float,
    seeds: int | None,
    only: str | None,
    upto: float,
) -> None:
    """Run a phase of the protocol in FOLDER."""
    more = {name: Path(path) for name, path in (run.split("=", 1) for run in runs)}
    wanted = rules.split(",") if rules else []
    names = [name for name in CANDIDATES if not wanted or name in wanted]
    greedy = [sparsity for sparsity in SPARSITIES if sparsity <= greedy_upto]
    for target in targets(phase, smollm2, more, only):
        place = folder / phase / target.name
        file = place / "choices.json"
        choices: Choices = json.loads(file.read_text()) if file.exists() else {}
        for seed in list(SEEDS[phase])[:seeds]:
            choices |= _choose(target, seed, place, names, greedy, choices)
            files.write_json(file, choices)
            click.echo(f"{target.name}: layers chosen for seed {seed}")
        files.write_json(place / "about.json", {"layers": target.layers, **target.facts})
        evaluate_all(target, place, _chosen(choices, wanted, list(SEEDS[phase])[:seeds], upto))


def _choose(
    target: Target, seed: int, place: Path, rules: list[str], greedy: list[float], done: Choices
) -> Choices:
    """What is not chosen yet for this seed."""
    found: Choices = {}
    missing = [name for name in rules if f"{name} {SPARSITIES[-1]} {seed}" not in done]
    has_baselines = f"topovlm {SPARSITIES[-1]} {seed}" in done
    clouds = kept_clouds(target, seed, place)
    if not has_baselines or (missing and clouds is None):
        evidence, clouds = evidence_and_clouds(target, seed, BASELINES)
        keep_clouds(seed, place, clouds)
        found |= {} if has_baselines else choose_baselines(target, seed, evidence)
    if missing and clouds is not None:
        found |= choose_all(target, seed, missing, clouds)
    if greedy and f"greedy {greedy[-1]} {seed}" not in done:
        found |= choose_greedy(target, seed, greedy)
    return found


def _chosen(choices: Choices, rules: list[str], seeds: list[int], upto: float) -> Choices:
    """The part that is asked for."""
    found: Choices = {}
    for key, layers in choices.items():
        rule, sparsity, seed = key.rsplit(" ", 2)
        if (not rules or rule in rules) and int(seed) in seeds and float(sparsity) <= upto:
            found[key] = layers
    return found


if __name__ == "__main__":
    main()
