"""Tables of the models' cards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from training.conversations import KINDS
from training.evaluate import FORMS

TITLES = {"yesno": "yes/no", "open": "open", "choice": "multiple choice"}


def curve_table(curve: Sequence[Mapping[str, Any]], rows: int = 20) -> str:
    """Loss and accuracy by step; of a long curve, about `rows` points and the last one."""
    stride = max(1, -(-len(curve) // rows))
    shown = [point for i, point in enumerate(curve) if (len(curve) - 1 - i) % stride == 0]
    lines = [
        f"| {p['step']} | {p['loss']:.3f} | " + " | ".join(f"{100 * p[form]:.1f} %" for form in FORMS) + " |"
        for p in shown
    ]
    head = "| step | loss | " + " | ".join(TITLES[form] for form in FORMS) + " |"
    return "\n".join([head, "|---:|---:" + "|---:" * len(FORMS) + "|", *lines])


def figures_table(figures: Mapping[str, float]) -> str:
    """Accuracy in percent, a row a kind and a column a form; empty where a kind is not asked so."""
    lines = [
        f"| {kind} | "
        + " | ".join(
            f"{100 * figures[c]:.1f}" if (c := f"{form}:{kind}") in figures else "" for form in FORMS
        )
        + " |"
        for kind in KINDS
    ]
    means = "| **mean** | " + " | ".join(f"{100 * figures[form]:.1f}" for form in FORMS) + " |"
    head = "| kind | " + " | ".join(TITLES[form] for form in FORMS) + " |"
    return "\n".join([head, "|---" + "|---:" * len(FORMS) + "|", *lines, means])
