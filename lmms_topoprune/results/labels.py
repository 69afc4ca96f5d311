"""How tables call the model of a plan."""

from __future__ import annotations

from typing import Any

from lmms_topoprune import registry
from lmms_topoprune.errors import OptionError
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.plan import PruningPlan

GRID = ("version", "code", "sparsity", "seed")
"""Parameters that say which cell of a grid it is, or nothing that was asked for."""


def variant(plan: PruningPlan) -> str:
    """The criterion with every parameter that differs from its own default, and the repair."""
    return _asked_for(plan) if plan.dropped else "dense"


def _asked_for(plan: PruningPlan) -> str:
    token = None if "points" in plan.calibration else plan.calibration.get("token")  # a cloud has none
    asked = {**plan.parameters, "token": token}
    changed = [f"{name}={value}" for name, value in asked.items() if _differs(plan, name, value)]
    repair = [f"repair={plan.repair['method']}"] if plan.repair else []
    return " ".join([plan.criterion, *changed, *repair])


def _differs(plan: PruningPlan, name: str, value: Any) -> bool:
    if name in GRID or value is None:
        return False
    try:
        criterion = registry.get(plan.criterion)
        options = PruningOptions(criterion=plan.criterion)
    except OptionError:
        return False  # an explicit list of layers, or a criterion this version does not know
    if name == "token" and criterion.state == "none":
        return False  # it reads no state, so no token
    own = {"selection": criterion.selection, "state": criterion.state}
    default = (
        own.get(name, "auto") if getattr(options, name, None) == "auto" else getattr(options, name, value)
    )
    return bool(value != default)


def plan_label(plan: PruningPlan) -> str:
    """Variant and sparsity: the one that was asked for, or what a threshold came to, if only to 0."""
    if not plan.dropped and plan.parameters.get("selection") != "threshold":
        return "dense"
    return f"{_asked_for(plan)} {100 * (plan.parameters.get('sparsity') or plan.sparsity):.3g} %"
