"""Depth of whole model folders, in answers and in English text, and its tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import zip_longest
from math import exp
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
)

from training import depth

LENGTH = 256
CHEAP = 0.01
"""A layer is cheap whose loss alone costs less than this share of right answers: one point."""


def measure(folder: Path, texts: Path | None, windows: int, per_cell: int) -> dict[str, Any]:
    """Costs of every layer of a model folder, a language model's in text alone.

    Args:
        folder: for from_pretrained.
        texts: a folder of JSON files, each a list of paragraphs; None leaves text out.
        windows: windows of LENGTH tokens of every text.
        per_cell: questions of every form and kind.

    Returns:
        "similarity": the largest cosine similarity of two layers' matrices, and of each layer to any other;
        "answers" and "text: NAME": what `depth.deletion_costs` returns.
    """
    is_vlm = hasattr(AutoConfig.from_pretrained(folder), "vision_config")
    kind = AutoModelForImageTextToText if is_vlm else AutoModelForCausalLM
    model = kind.from_pretrained(folder, dtype=torch.float32).eval()
    alike = depth.similarity(model).fill_diagonal_(-1).amax(1)
    found: dict[str, Any] = {"similarity": {"largest": alike.max().item(), "layers": alike.tolist()}}
    if is_vlm:
        processor = AutoProcessor.from_pretrained(folder)
        found["answers"] = depth.deletion_costs(model, depth.answers(processor, per_cell))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for file in sorted(texts.glob("*.json")) if texts else ():
        batches = depth.text(tokenizer, json.loads(file.read_text()), windows, LENGTH)
        found[f"text: {file.stem}"] = depth.deletion_costs(model, batches)
    return found


def perplexity(measured: Mapping[str, Any], index: int | None = None) -> float | None:
    """Geometric mean over the texts, dense or without a layer; None where no text was measured."""
    rows = [value for name, value in measured.items() if name.startswith("text: ")]
    losses = [(row["dense"] if index is None else row["without"][index])["loss"] for row in rows]
    return exp(sum(losses) / len(losses)) if losses else None


def answer_cost(measured: Mapping[str, Any], index: int) -> float | None:
    """Share of right answers lost without a layer; None for a language model."""
    found = measured.get("answers")
    return found["dense"]["accuracy"] - found["without"][index]["accuracy"] if found else None


def tables(measured: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown: a row a model with its dense figures, then a row a layer with the costs of all models."""
    names = list(measured)
    head = "| model | layers | right answers | perplexity | inner layers under 1 point | nearest layers |"
    lines = [head, "|---|---:|---:|---:|---:|---:|"]
    for name in names:
        found = measured[name]
        count = len(found["similarity"]["layers"])
        costs = [answer_cost(found, i) for i in range(1, count - 1)]
        cheap = sum(cost is not None and cost < CHEAP for cost in costs)
        right = f"{100 * found['answers']['dense']['accuracy']:.1f} %" if "answers" in found else ""
        cheap_text = f"{cheap} of {count - 2}" if "answers" in found else ""
        text = _number(perplexity(found))
        alike = f"cosine {found['similarity']['largest']:.3f}"
        lines.append(f"| {name} | {count} | {right} | {text} | {cheap_text} | {alike} |")
    columns = [(name, what) for name in names for what in ("answers", "text") if _has(measured[name], what)]
    titles = {"answers": "points of answers lost", "text": "perplexity of text"}
    lines += ["", "| layer left out | " + " | ".join(f"{n}: {titles[w]}" for n, w in columns) + " |"]
    lines.append("|---:" + "|---:" * len(columns) + "|")
    counts = [range(len(measured[name]["similarity"]["layers"])) for name, _ in columns]
    for row in zip_longest(*counts):
        index = max(i for i in row if i is not None)
        cells = [
            "" if i is None else _cell(measured[name], what, i)
            for i, (name, what) in zip(row, columns, strict=True)
        ]
        lines.append(f"| {index} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _has(found: Mapping[str, Any], what: str) -> bool:
    return any(name.split(":")[0] == what for name in found)


def _cell(found: Mapping[str, Any], what: str, index: int) -> str:
    if what == "text":
        return _number(perplexity(found, index))
    return f"{100 * (answer_cost(found, index) or 0):.1f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}" if value < 1e4 else f"{value:.1e}"
