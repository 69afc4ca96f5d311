"""What a pruned model carries with it: which layers it still has, the repair and the healing in force."""

from __future__ import annotations

from typing import Any

from torch import nn

KEPT = "_topoprune_kept"  # (layers of the dense model, those of them that are left)
REPAIR = "_topoprune_repair"
CUTS = "cuts"
HEALING = "_topoprune_healing"
OUTCOME = "outcome"  # of a healing: steps, tokens and losses


def repair_of(model: nn.Module) -> dict[str, Any]:
    """The record of the repair that is in force on a model; empty without one."""
    return dict(vars(model).get(REPAIR, {}))


def healing_of(model: nn.Module) -> dict[str, Any]:
    """The record of the healing that is in force on a model, without what came of it; empty without one."""
    record = vars(model).get(HEALING, {})
    return {name: value for name, value in record.items() if name != OUTCOME}


def outcome_of(model: nn.Module) -> dict[str, float]:
    """What came of the healing that is in force on a model: steps, tokens, seconds, losses; empty without."""
    return dict(vars(model).get(HEALING, {}).get(OUTCOME, {}))
