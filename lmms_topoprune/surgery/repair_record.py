"""The record of a repair that a pruned model carries."""

from __future__ import annotations

from typing import Any

from torch import nn

RECORD = "_topoprune_repair"
CUTS = "cuts"


def repair_of(model: nn.Module) -> dict[str, Any]:
    """The record of the repair that is in force on a model; empty without one."""
    return dict(vars(model).get(RECORD, {}))
