"""What a pruned model carries with it: which layers it still has, and the repair that is in force."""

from __future__ import annotations

from typing import Any

from torch import nn

KEPT = "_topoprune_kept"  # (layers of the dense model, those of them that are left)
REPAIR = "_topoprune_repair"
CUTS = "cuts"


def repair_of(model: nn.Module) -> dict[str, Any]:
    """The record of the repair that is in force on a model; empty without one."""
    return dict(vars(model).get(REPAIR, {}))
