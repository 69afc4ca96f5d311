"""How tables call the model of a plan."""

from __future__ import annotations

import json
from typing import Any

from lmms_topoprune import registry
from lmms_topoprune.errors import OptionError
from lmms_topoprune.options import HealingOptions, PruningOptions
from lmms_topoprune.plan import PruningPlan

GRID = ("version", "code", "sparsity", "seed")
"""Parameters that say which cell of a grid it is, or nothing that was asked for."""


def variant(plan: PruningPlan) -> str:
    """The criterion with every parameter that differs from its own default, the repair and the healing."""
    return _asked_for(plan) if plan.dropped else "dense"


def _asked_for(plan: PruningPlan) -> str:
    token = None if "points" in plan.calibration else plan.calibration.get("token")  # a cloud has none
    asked = {**plan.parameters, "token": token}
    changed = [f"{name}={value}" for name, value in asked.items() if _differs(plan, name, value)]
    repair = [f"repair={plan.repair['method']}"] if plan.repair else []
    heal = [f"heal={healing_text(plan)}"] if plan.heal else []
    return " ".join([plan.criterion, *changed, *repair, *heal])


def healing_text(plan: PruningPlan) -> str:
    """The settings of a plan's healing that tell it from others, such as "steps=200"; empty without one."""
    return HealingOptions.of_plan(plan.heal).text if plan.heal else ""


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


def series(plan: PruningPlan) -> str:
    """Equal for plans that differ in nothing but the seed of the calibration set or of the criterion."""
    drawn = ("seed", "fingerprint")
    parts = (plan.parameters, plan.calibration, plan.repair, plan.heal)
    same = [{name: value for name, value in part.items() if name not in drawn} for part in parts]
    found = [plan.fingerprint, plan.layers, plan.criterion, *same]
    return json.dumps(found, sort_keys=True, default=str)


def seed_of(plan: PruningPlan | None) -> int:
    return 0 if plan is None else int(plan.calibration.get("seed", plan.parameters.get("seed", 0)) or 0)
