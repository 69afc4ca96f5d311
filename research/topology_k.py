"""How J through intersections and through unions depends on k and on the number of points.

    python benchmarks/rule/smollm2.py runs/smollm2
    python research/topology_k.py runs/smollm2 runs/topology-k.json

Development texts only (A: anarchism, B: handbook). Points are tokens: positions 8 to 63 of 96 passages of 64
tokens, drawn at random, the same in every residual state. The cost of a layer is the rise of the loss on
other passages (4 x 256 tokens of each text) when that layer alone is left out. Printed is the rank
correlation of J(l, l + 1) with that cost, turned so that 1 is perfect.
"""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from scipy.stats import rankdata, spearmanr
from transformers import AutoModelForCausalLM, AutoTokenizer

from lmms_topoprune.topology import Neighbors, jaccard, neighbors_barcode
from lmms_topoprune.topology.state_similarity import scales

TEXTS = ("anarchism", "handbook")
KS = (5, 7, 10, 15, 20)
POINTS = (512, 1024, 2048)
PASSAGES, LENGTH, FIRST = 96, 64, 8
EVAL_PASSAGES, EVAL_LENGTH = 4, 256


def passages(tokenizer: Any, paragraphs: list[str], length: int, count: int) -> torch.Tensor:
    """(count, length) token ids: paragraphs in a row, cut."""
    ids: list[int] = []
    for text in paragraphs:
        ids += tokenizer(text + "\n\n")["input_ids"]
        if len(ids) >= count * length:
            break
    return torch.tensor(ids[: count * length]).reshape(count, length)


@torch.inference_mode()
def residual_states(model: Any, ids: torch.Tensor) -> np.ndarray:
    """(S, tokens, d): inputs of all layers and the output of the last, at positions FIRST to the end."""
    kept: list[list[torch.Tensor]] = [[] for _ in range(len(model.model.layers) + 1)]

    def keep(place: int, inputs: tuple[torch.Tensor, ...]) -> None:
        kept[place].append(inputs[0][:, FIRST:].flatten(0, 1))

    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, i=i: keep(i, inputs))
        for i, layer in enumerate([*model.model.layers, model.model.norm])
    ]
    for batch in ids.split(16):
        model(batch, logits_to_keep=1)
    for hook in hooks:
        hook.remove()
    return torch.stack([torch.cat(parts) for parts in kept]).numpy()


@torch.inference_mode()
def costs(model: Any, ids: torch.Tensor) -> list[float]:
    """(L,): the rise of the loss when one layer is left out; each run starts behind that layer."""
    body, layers = model.model, model.model.layers
    states = [body.embed_tokens(ids)]
    places = torch.arange(ids.shape[1])[None]
    turned = body.rotary_emb(states[0], places)

    def through(hidden: torch.Tensor, first: int, kept: list[torch.Tensor] | None = None) -> float:
        for layer in layers[first:]:
            hidden = layer(hidden, position_ids=places, position_embeddings=turned)
            if kept is not None:
                kept.append(hidden)
        logits = model.lm_head(body.norm(hidden))[:, :-1].flatten(0, 1)
        return float(torch.nn.functional.cross_entropy(logits, ids[:, 1:].flatten()))

    dense = through(states[0], 0, states)
    return [through(states[gone], gone + 1) - dense for gone in range(len(layers))]


def neighboring(states: np.ndarray, through: str, metric: str) -> dict[int, np.ndarray]:
    """k -> (L,): J(l, l + 1) in H1."""
    neighbors = Neighbors.of(states, max(KS), metric, "adjacent" if through == "unions" else "none")
    found = {}
    for k in sorted({*KS, *scales(states.shape[1])}):
        barcode = neighbors_barcode(neighbors, k=k, through=through, dimensions=(1,))
        found[k] = np.diagonal(jaccard(barcode, 1), 1).copy()
    return found


def load(folder: Path) -> tuple[Any, Any, dict[str, list[str]]]:
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32).eval()
    texts = {name: json.loads((folder / "texts" / f"{name}.json").read_text()) for name in TEXTS}
    return tokenizer, model, texts


def measured_costs(folder: Path) -> dict[str, list[float]]:
    """Text -> (L,), on paragraphs from the middle of the text on."""
    tokenizer, model, texts = load(folder)
    held = {t: passages(tokenizer, p[len(p) // 2 :], EVAL_LENGTH, EVAL_PASSAGES) for t, p in texts.items()}
    return {text: costs(model, ids) for text, ids in held.items()}


def measured_scores(folder: Path, seeds: int) -> list[dict[str, Any]]:
    """J(l, l + 1) for every text, number of points, draw, zigzag and metric."""
    tokenizer, model, texts = load(folder)
    clouds = {t: residual_states(model, passages(tokenizer, p, LENGTH, PASSAGES)) for t, p in texts.items()}
    found = []
    for n, seed, text in product(POINTS, range(seeds), TEXTS):
        drawn = np.random.default_rng(seed).choice(clouds[text].shape[1], n, replace=False)
        states = np.ascontiguousarray(clouds[text][:, np.sort(drawn)])
        for through, metric in product(("unions", "intersections"), ("euclidean", "cosine")):
            row = {"text": text, "n": n, "seed": seed, "through": through, "metric": metric}
            values = neighboring(states, through, metric)
            found.append({**row, "j": {k: v.tolist() for k, v in values.items()}})
            click.echo(f"{row}")
    return found


def agreement(j: np.ndarray, cost: np.ndarray, inner: bool) -> float:
    part = slice(1, -1) if inner else slice(None)
    return float(spearmanr(-j[part], cost[part]).statistic)


def table(result: dict[str, Any]) -> str:
    """Markdown: mean over texts and seeds of the rank correlation, all layers (inner ones in brackets)."""
    cost = np.mean([result["costs"][t] for t in TEXTS], axis=0)
    sets: dict[str, tuple[int, ...] | None] = {str(k): (k,) for k in KS}
    sets |= {"mean of 5, 10, 15, 20": (5, 10, 15, 20), "mean of 7, 10, 15": (7, 10, 15), "scales(N)": None}
    lines = ["| N | zigzag | metric | " + " | ".join(sets) + " |", "|" + "---|" * (3 + len(sets))]
    for n in POINTS:
        for through in ("intersections", "unions"):
            for metric in ("cosine", "euclidean"):
                rows = _rows(result, n, through, metric)
                cells = [_shown([_mean(row, ks or scales(n)) for row in rows], cost) for ks in sets.values()]
                lines.append(f"| {n} | {through} | {metric} | " + " | ".join(cells) + " |")
        pair = _rows(result, n, "intersections", "cosine"), _rows(result, n, "unions", "euclidean")
        both = [sum(rankdata(_mean(row, scales(n))) for row in rows) for rows in zip(*pair, strict=True)]
        empty = " |" * (len(sets) - 1)
        lines.append(f"| {n} | both, by rank | as above |{empty} {_shown(both, cost)} |")
    return "\n".join(lines)


def _rows(result: dict[str, Any], n: int, through: str, metric: str) -> list[dict[str, list[float]]]:
    wanted = (n, through, metric)
    return [row["j"] for row in result["scores"] if (row["n"], row["through"], row["metric"]) == wanted]


def _mean(j: dict[Any, list[float]], ks: tuple[int, ...]) -> np.ndarray:
    by_k = {int(k): values for k, values in j.items()}
    return np.mean([by_k[k] for k in ks], axis=0)


def _shown(values: list[np.ndarray], cost: np.ndarray) -> str:
    if not values:
        return "-"
    every, inner = (np.mean([agreement(v, cost, i) for v in values]) for i in (False, True))
    return f"{every:.2f} ({inner:.2f})"


@click.command()
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--seeds", default=1, help="draws of points")
def main(folder: Path, out: Path, seeds: int) -> None:
    """Measure with FOLDER's model and texts, or print what OUT already holds."""
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        result = {"costs": measured_costs(folder), "scores": measured_scores(folder, seeds)}
        out.write_text(json.dumps(result))
    click.echo(table(json.loads(out.read_text())))


if __name__ == "__main__":
    main()
